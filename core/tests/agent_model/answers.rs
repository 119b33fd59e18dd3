//! Single behaviours: what the brain answers to one event, or to a few.

use sentinel_core::agent::{Admitted, Agent, Effect, Event, Facts, PolicyVerdict, Rules, SecretsSent};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::outcome::{LostReason, Outcome};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Start, ToAgent};
use sentinel_protocol::to_operator::{ReportedState, ToOperator};

use crate::attempt_dir::{START_MS, ended};
use crate::machine::Machine;
use crate::operation::Op;
use crate::world::{World, admitted, id, rules, start};

fn at(seconds: u64) -> Now {
    Now { monotonic: Monotonic(seconds * 1000), wall: UnixMillis(0) }
}

fn received(message: ToAgent) -> Event {
    received_with(message, SecretsSent::Values)
}

fn received_with(message: ToAgent, secrets: SecretsSent) -> Event {
    let facts = Facts { free: u64::MAX, policy: PolicyVerdict::NoPolicy, secrets, ..Facts::default() };
    Event::Received { message, facts }
}

/// A `Start` that the node's policy refuses.
fn refused_start(n: usize, epoch: u64) -> Event {
    let policy = PolicyVerdict::Refused { rule: "no-root".into(), why: "root".into() };
    let facts = Facts { free: u64::MAX, policy, ..Facts::default() };
    Event::Received { message: ToAgent::Start(Box::new(start(n, 0, epoch))), facts }
}

#[test]
fn what_the_policy_refuses_is_refused_for_the_session_and_asked_again_in_the_next() {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Replayed { seen: vec![], unreadable: vec![] }, at(0));
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    let expected = Refusal::Policy { rule: "no-root".into(), why: Some("root".into()) };
    assert_eq!(only_refusal(&agent.step(refused_start(0, 1), at(0))), &expected);
    // A repeated `Start` is not refused and then run, though the policy has changed.
    assert_eq!(only_refusal(&agent.step(received_start(0, 0, 1), at(0))), &expected);
    agent.step(Event::Disconnected, at(1));
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(1));
    assert!(matches!(agent.step(received_start(0, 0, 1), at(1))[..], [Effect::Record(_)]));
}

#[test]
fn what_the_policy_does_not_allow_any_more_when_it_is_launched_ends_as_refused() {
    let mut agent = recorded_agent();
    let refusal = Refusal::Policy { rule: "kill-switch".into(), why: None };
    let effects = agent.step(Event::LaunchRefused { attempt: id(0), refusal: refusal.clone() }, at(0));
    let [Effect::Abandon { attempt, ended }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((attempt, &ended.outcome), (&id(0), &Outcome::Refused { refusal }));
}

fn received_start(n: usize, spec: u8, epoch: u64) -> Event {
    received(ToAgent::Start(Box::new(start(n, spec, epoch))))
}

fn recorded_agent() -> Agent {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Replayed { seen: vec![], unreadable: vec![] }, at(0));
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    agent.step(received_start(0, 0, 1), at(0));
    agent.step(Event::Recorded { attempt: id(0) }, at(0));
    agent
}

fn only_refusal(effects: &[Effect]) -> &Refusal {
    let [Effect::Send(ToOperator::Refused(refused))] = effects else { panic!("{effects:?}") };
    &refused.refusal
}

#[test]
fn request_is_durable_before_launch_and_launched_before_report() {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    let first = agent.step(received_start(0, 0, 1), at(0));
    assert_eq!(first, [Effect::Record(admitted(start(0, 0, 1)))]);
    let then = agent.step(Event::Recorded { attempt: id(0) }, at(0));
    assert_eq!(then[0], Effect::Launch(id(0)));
    assert!(
        matches!(&then[1..], [Effect::Send(ToOperator::Report(r))] if r.state == ReportedState::Accepted)
    );
}

#[test]
fn after_a_restart_an_attempt_waits_for_the_values_of_its_secrets() {
    let seen = {
        let mut world = World { received: Some(id(1)), ..World::default() };
        let permit = world.policy().permit().unwrap().cloned();
        let start = Start { secrets: None, ..start(1, 0, 0) };
        world.perform(Effect::Record(Box::new(Admitted { start, permit })));
        world.seen(&id(1)).unwrap()
    };
    let restarted = || {
        let mut agent = Agent::new(rules(), Epoch::ZERO);
        let effects = agent.step(Event::Replayed { seen: vec![seen.clone()], unreadable: vec![] }, at(0));
        assert_eq!(effects, [], "nothing is launched without its secrets");
        agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
        agent
    };
    let message = || ToAgent::Start(Box::new(start(1, 0, 1)));
    let mut agent = restarted();
    let accepted = |effect: &Effect| matches!(effect, Effect::Send(ToOperator::Report(_)));
    let effects = agent.step(received_with(message(), SecretsSent::None), at(1));
    assert!(matches!(&effects[..], [report] if accepted(report)), "{effects:?}");
    let effects = agent.step(received_with(message(), SecretsSent::Values), at(1));
    assert!(accepted(&effects[0]));
    assert_eq!(effects[1..], [Effect::KeepSecrets(id(1)), Effect::Inspect(id(1))]);
    assert_eq!(agent.step(Event::Observed(seen.clone()), at(1)), [Effect::Launch(id(1))]);
    // A third one changes nothing.
    let effects = agent.step(received_with(message(), SecretsSent::Values), at(1));
    assert!(matches!(&effects[..], [report] if accepted(report)), "{effects:?}");
    // Its start clock does not wait.
    let effects = restarted().step(Event::Observed(seen.clone()), at(START_MS / 1000));
    let [Effect::Abandon { ended, .. }] = &effects[..] else { panic!("{effects:?}") };
    let Outcome::StartTimedOut { why: Some(why) } = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(why.contains("the operator did not send them again"), "{why}");
}

#[test]
fn repeated_start_is_answered_with_the_current_state() {
    let mut agent = recorded_agent();
    let again = agent.step(received_start(0, 0, 1), at(1));
    assert!(
        matches!(&again[..], [Effect::Send(ToOperator::Report(r))] if r.state == ReportedState::Accepted)
    );
}

#[test]
fn same_id_with_another_spec_is_refused() {
    let mut agent = recorded_agent();
    assert_eq!(only_refusal(&agent.step(received_start(0, 1, 1), at(1))), &Refusal::SpecHashMismatch);
}

#[test]
fn stale_epoch_is_refused_and_a_newer_one_persisted_first() {
    let mut agent = recorded_agent();
    let newer = agent.step(received_start(1, 0, 5), at(1));
    assert_eq!(newer[0], Effect::SetEpoch(Epoch::from(5)));
    assert!(matches!(newer[1], Effect::Record(_)));
    let older = agent.step(received_start(2, 0, 4), at(1));
    assert_eq!(only_refusal(&older), &Refusal::StaleEpoch { seen: Epoch::from(5) });
}

#[test]
fn refused_start_is_not_run_when_resent_in_the_session() {
    let mut machine = Machine::connected();
    (0..4).for_each(|n| machine.start(n));
    assert!(machine.world.refused_now.contains(&id(3)));
    for _ in 0..4 {
        machine.world.supervise(0, 0, false);
    }
    machine.apply(&Op::Observe { n: 0 });
    machine.start(3);
    assert!(!machine.world.dirs.contains_key(&id(3)));
}

#[test]
fn busy_agent_declines_copies_of_an_offer_and_accepts_the_next() {
    let mut agent = Agent::new(Rules { max_attempts: 1, ..rules() }, Epoch::ZERO);
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    agent.step(received_start(0, 0, 1), at(0));
    agent.step(Event::Recorded { attempt: id(0) }, at(0));
    let offer = |agent: &mut Agent, offer| {
        let start = Start { offer, ..start(1, 0, 1) };
        agent.step(received(ToAgent::Start(Box::new(start))), at(1))
    };
    let declined = offer(&mut agent, 1);
    assert_eq!(only_refusal(&declined), &Refusal::TooManyAttempts { limit: 1, rule: None });
    assert!(matches!(&declined[..], [Effect::Send(ToOperator::Refused(r))] if r.offer == 1), "{declined:?}");

    let over = ended(Outcome::Cancelled, 1);
    agent.step(Event::Concluded { attempt: id(0), ended: Box::new(over) }, at(2));
    assert_eq!(offer(&mut agent, 1), declined, "a late copy of the offer was taken");
    assert!(matches!(offer(&mut agent, 2)[..], [Effect::Record(_)]));
}

#[test]
fn start_without_offer_number_is_refused_permanently() {
    let mut agent = Agent::new(Rules { max_attempts: 0, ..rules() }, Epoch::ZERO);
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    let refused = agent.step(received_start(0, 0, 1), at(0));
    assert!(matches!(&refused[..], [Effect::Send(ToOperator::Refused(r))] if r.offer == 0), "{refused:?}");
    assert_eq!(agent.step(received_start(0, 0, 1), at(1)), refused);
}

#[test]
fn report_is_resent_every_ten_seconds_until_acknowledged() {
    let mut agent = recorded_agent();
    let reports = |effects: Vec<Effect>| effects.iter().filter(|e| matches!(e, Effect::Send(_))).count();
    assert_eq!(reports(agent.step(Event::Tick, at(9))), 0);
    assert_eq!(reports(agent.step(Event::Tick, at(10))), 1);
    assert_eq!(reports(agent.step(Event::Tick, at(19))), 0);
    assert_eq!(reports(agent.step(Event::Tick, at(20))), 1);
    agent.step(received(ToAgent::Ack(Ack { attempt: id(0), stage: Stage::Accepted })), at(20));
    assert_eq!(reports(agent.step(Event::Tick, at(40))), 0);
    assert_eq!(agent.unacknowledged(), 0);
}

#[test]
fn cancel_of_an_unknown_attempt_prevents_its_later_start() {
    let mut machine = Machine::connected();
    machine.apply(&Op::Cancel { n: 0, stale: false });
    assert_eq!(machine.world.tombs[&id(0)].ended.outcome, Outcome::Cancelled);
    machine.restart();
    machine.connect();
    machine.start(0);
    assert!(machine.world.dirs.is_empty());
    assert_eq!(machine.world.reported[&id(0)].outcome, Outcome::Cancelled);
}

#[test]
fn cancelled_attempt_without_supervisor_never_starts() {
    let mut machine = Machine::connected();
    machine.start(0);
    machine.apply(&Op::Cancel { n: 0, stale: false });
    machine.world.supervise(0, 0, false);
    assert_eq!(machine.world.reported[&id(0)].outcome, Outcome::Cancelled);
    assert!(machine.world.executions.is_empty());
}

#[test]
fn running_command_is_cancelled_by_its_supervisor() {
    let mut machine = Machine::connected();
    machine.start(0);
    (0..3).for_each(|_| machine.world.supervise(0, 0, false));
    machine.apply(&Op::Cancel { n: 0, stale: false });
    assert!(machine.world.dirs[&id(0)].cancel && machine.world.dirs[&id(0)].exit.is_none());
    machine.world.supervise(0, 0, false);
    machine.apply(&Op::Observe { n: 0 });
    assert_eq!(machine.world.reported[&id(0)].outcome, Outcome::Cancelled);
}

#[test]
fn lost_supervisor_is_relaunched_after_five_seconds() {
    let mut machine = Machine::connected();
    machine.start(0);
    machine.world.supervise(0, 0, true);
    machine.apply(&Op::Pass { millis: 4_999 });
    assert!(machine.world.dirs[&id(0)].supervisors.is_empty());
    machine.apply(&Op::Pass { millis: 1 });
    assert_eq!(machine.world.dirs[&id(0)].supervisors.len(), 1);
}

#[test]
fn attempt_accepted_before_a_reboot_waits_for_another_start() {
    let mut machine = Machine::connected();
    // The starts of these are not in the log.
    machine.start(0);
    machine.start(2);
    machine.apply(&Op::Reboot);
    machine.connect();
    machine.apply(&Op::Pass { millis: 1_000 });
    assert!(machine.world.dirs.values().all(|dir| dir.supervisors.is_empty()));
    machine.start(0);
    assert_eq!(machine.world.dirs[&id(0)].supervisors.len(), 1);
    machine.apply(&Op::Pass { millis: START_MS });
    assert_eq!(machine.world.reported[&id(2)].outcome, Outcome::StartTimedOut { why: None });
}

/// Its command may have been started: the log is all that is left of it.
#[test]
fn attempt_whose_start_was_logged_before_a_reboot_is_lost() {
    let mut machine = Machine::connected();
    machine.start(1);
    machine.apply(&Op::Reboot);
    machine.connect();
    machine.start(1);
    let lost = Outcome::Lost { reason: LostReason::NodeRebooted };
    assert_eq!(machine.world.reported[&id(1)].outcome, lost);
    assert!(machine.world.dirs[&id(1)].supervisors.is_empty());
}

#[test]
fn forget_of_an_active_attempt_is_ignored() {
    let mut machine = Machine::connected();
    machine.start(0);
    machine.apply(&Op::Forget { n: 0 });
    assert!(machine.world.dirs.contains_key(&id(0)));
}

#[test]
fn result_is_forgotten_only_once_acknowledged() {
    let mut machine = Machine::connected();
    machine.start(0);
    for _ in 0..4 {
        machine.apply(&Op::Supervise { n: 0, which: 0, kill: false });
    }
    machine.apply(&Op::Observe { n: 0 });
    machine.apply(&Op::Forget { n: 0 });
    assert!(machine.world.dirs.contains_key(&id(0)), "its output may not be archived");
    machine.apply(&Op::Ack { n: 0, stage: Stage::Ended });
    assert!(!machine.world.dirs.contains_key(&id(0)));
}

#[test]
fn journal_failure_refuses_new_attempts_and_keeps_old_ones() {
    let mut agent = recorded_agent();
    agent.step(received_start(1, 0, 1), at(1));
    let effects = agent.step(Event::JournalFailed { message: "EIO".into() }, at(1));
    assert_eq!(only_refusal(&effects), &Refusal::JournalUnsafe { message: "EIO".into() });
    assert_eq!(only_refusal(&agent.step(received_start(2, 0, 1), at(1))).to_string(), {
        Refusal::JournalUnsafe { message: "EIO".into() }.to_string()
    });
    assert_eq!(agent.living(), 1);
}

#[test]
fn stopping_agent_accepts_and_launches_nothing() {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    agent.step(received_start(0, 0, 1), at(0));
    agent.step(Event::Stopping, at(0));
    let effects = agent.step(Event::Recorded { attempt: id(0) }, at(0));
    assert!(!effects.contains(&Effect::Launch(id(0))));
    assert_eq!(only_refusal(&agent.step(received_start(1, 0, 1), at(0))), &Refusal::Stopping);
}

#[test]
fn attempt_with_unreadable_record_is_lost_and_never_started() {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Replayed { seen: vec![], unreadable: vec![id(0).directory_name()] }, at(0));
    agent.step(Event::Connected { epoch: Epoch::ZERO }, at(0));
    let effects = agent.step(received_start(0, 0, 1), at(0));
    let [Effect::Send(ToOperator::Report(report))] = &effects[..] else { panic!("{effects:?}") };
    assert!(matches!(&report.state, ReportedState::Ended(e) if e.outcome.name() == "Lost"));
}

#[test]
fn large_inventory_is_sent_in_parts() {
    let seen = |n: usize| {
        let mut world = World::default();
        let permit = world.policy().permit().unwrap().cloned();
        world.perform(Effect::Record(Box::new(Admitted { start: start(2 * n, 0, 0), permit })));
        world.seen(&id(2 * n)).unwrap()
    };
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Replayed { seen: (0..1001).map(seen).collect(), unreadable: vec![] }, at(0));
    let parts: Vec<(usize, bool)> = agent
        .step(Event::Connected { epoch: Epoch::ZERO }, at(0))
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send(ToOperator::Inventory(part)) => Some((part.attempts.len(), part.more)),
            _ => None,
        })
        .collect();
    assert_eq!(parts, [(500, true), (500, true), (1, false)]);
}
