//! The output that the agent sends over its log socket, received, archived and compared.

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::Stream;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::Ended;

use super::gateway::{Archive, Control, Gateway, LogFrame};
use super::{ALL, Node, TOKEN, attempt, start, to_start};

/// Receives and archives the output of an Attempt up to this position.
pub(super) async fn archive_all(
    gateway: &mut Gateway,
    control: &Control,
    id: &AttemptId,
    archive: &mut Archive,
    end: u64,
) {
    while archive.upto < end {
        let mut logs = gateway.log(control).await;
        loop {
            match logs.next().await {
                LogFrame::Open(opened, _) => {
                    assert_eq!(opened, *id);
                    logs.credit(id, ALL, archive.upto).await;
                }
                LogFrame::Record(_, record) => archive.take(record),
                LogFrame::Closed => break,
            }
            if archive.upto >= end {
                logs.credit(id, ALL, archive.upto).await;
                break;
            }
        }
    }
}

pub(super) fn check_output(ended: &Ended, archive: &Archive) {
    assert_eq!(archive.upto, ended.output.end);
    assert_eq!(archive.sha256(Stream::Stdout), ended.output.stdout.sha256);
}

#[tokio::test]
async fn output_is_exact_over_repeated_disconnects() {
    let mut gateway = Gateway::start(TOKEN).await;
    let _node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    let id = attempt(1);
    let start = Start { credit: 300_000, ..start(1, "seq 1 1500000") };
    control.send_message(to_start(&start)).await;
    let mut archive = Archive::default();
    let mut received = Archive::default();
    for round in 1..=6u64 {
        let mut logs = gateway.log(&control).await;
        let mut granted = archive.upto.max(300_000);
        while received.upto < round * 1_000_000 {
            match logs.next().await {
                LogFrame::Open(..) => logs.credit(&id, granted, archive.upto).await,
                LogFrame::Record(_, record) => {
                    assert!(record.end() <= granted, "{} is beyond the credit of {granted}", record.end());
                    received.take(record);
                }
                LogFrame::Closed => panic!("the agent closed"),
            }
            if granted - received.upto < 100_000 {
                granted = received.upto + 300_000;
                logs.credit(&id, granted, archive.upto).await;
            }
        }
        // Some of what was received is lost with this operator.
        drop(logs);
        if round % 2 == 0 {
            drop(control);
            control = gateway.control().await;
        }
        received = Archive::default();
        let kept = archive.upto + 400_000 * (round % 2);
        archive_until(&mut gateway, &mut control, &id, &mut archive, kept).await;
        received.upto = archive.upto;
    }
    let ended = control.ended(&id).await;
    archive_all(&mut gateway, &control, &id, &mut archive, ended.output.end).await;
    assert_eq!(ended.outcome, Outcome::Succeeded { exit_code: 0 });
    check_output(&ended, &archive);
}

/// Archives up to about here, then drops the socket.
async fn archive_until(
    gateway: &mut Gateway,
    control: &mut Control,
    id: &AttemptId,
    archive: &mut Archive,
    end: u64,
) {
    let mut logs = gateway.log(control).await;
    while archive.upto < end {
        match logs.next().await {
            LogFrame::Open(..) => logs.credit(id, end, archive.upto).await,
            LogFrame::Record(_, record) => archive.take(record),
            LogFrame::Closed => panic!("the agent closed"),
        }
    }
}
