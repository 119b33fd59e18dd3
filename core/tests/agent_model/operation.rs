//! What can happen to an agent.

use proptest::prelude::*;
use sentinel_protocol::stage::Stage;

use crate::world::IDS;

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Start { n: usize, spec: u8, stale: bool, lead: bool, bare: bool },
    Cancel { n: usize, stale: bool },
    Ack { n: usize, stage: Stage },
    Forget { n: usize },
    Pass { millis: u64 },
    Connect,
    Disconnect,
    Crash { after: usize },
    Restart,
    Reboot,
    Supervise { n: usize, which: usize, kill: bool },
    Observe { n: usize },
    Policy { closed: bool },
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let n = 0..IDS;
    let rarely = || prop::bool::weighted(0.1);
    let stage = prop_oneof![Just(Stage::Accepted), Just(Stage::Running), Just(Stage::Ended)];
    prop_oneof![
        8 => (n.clone(), rarely(), rarely(), rarely(), rarely())
            .prop_map(|(n, spec, stale, lead, bare)| Op::Start { n, spec: u8::from(spec), stale, lead, bare }),
        2 => (n.clone(), rarely()).prop_map(|(n, stale)| Op::Cancel { n, stale }),
        3 => (n.clone(), stage).prop_map(|(n, stage)| Op::Ack { n, stage }),
        1 => n.clone().prop_map(|n| Op::Forget { n }),
        4 => (0..20_000u64).prop_map(|millis| Op::Pass { millis }),
        3 => Just(Op::Connect),
        1 => Just(Op::Disconnect),
        2 => (0..4usize).prop_map(|after| Op::Crash { after }),
        1 => Just(Op::Restart),
        1 => Just(Op::Reboot),
        10 => (n.clone(), 0..3usize, rarely()).prop_map(|(n, which, kill)| Op::Supervise { n, which, kill }),
        3 => n.prop_map(|n| Op::Observe { n }),
        2 => any::<bool>().prop_map(|closed| Op::Policy { closed }),
    ]
}
