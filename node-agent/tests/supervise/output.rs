//! What is kept of the output of a command: all of it, with its sums; and what happens at its limits.

use sentinel_node_agent::spool::Reader;
use sentinel_node_agent::supervisor::Prefork;
use sentinel_protocol::log::DropReason;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::OutputRules;

use super::fixtures::{Node, sha256, shell, wait_for};

#[test]
fn both_streams_are_complete_and_summed_up() {
    let mut node = Node::new();
    let run = node.run(&shell(1, "printf 'out\\n'; printf 'err' >&2; printf 'more'"));
    assert_eq!((run.stdout(), run.stderr()), (b"out\nmore".to_vec(), b"err".to_vec()));
    let output = &run.ended.output;
    assert_eq!((output.stdout.bytes, output.stderr.bytes, output.end), (8, 3, 11));
    assert_eq!((output.stdout.dropped, output.held_open, output.blocked_ms), (0, false, 0));
    assert_eq!(output.stdout.sha256, sha256(b"out\nmore"));
    assert_eq!(output.stderr.sha256, sha256(b"err"));
    let started = run.ended.started_at.unwrap();
    assert!(started <= run.ended.ended_at);
    assert!(run.ended.usage.max_rss > 100_000, "{:?}", run.ended.usage);
}

#[test]
fn output_just_before_the_exit_is_complete() {
    let mut node = Node::with(Prefork::On);
    for number in 1..=40 {
        let run = node.run(&shell(number, "printf 'last byte'"));
        assert_eq!(run.text(), "last byte", "run {number}");
    }
}

#[test]
fn a_line_of_100_mib_is_counted_completely() {
    let mut node = Node::new();
    let run = node.run(&shell(1, "head -c 104857600 /dev/zero | tr '\\0' 'x'"));
    // Nothing reads meanwhile, and the window is 64 MiB: the command is blocked for at most maxBlock.
    assert_eq!(run.ended.output.stdout.bytes, 104_857_600);
}

#[test]
fn random_bytes_have_the_digest_they_were_written_with() {
    let mut node = Node::new();
    let mut random =
        shell(1, "head -c 50000000 /dev/urandom | tee /proc/self/fd/2 | sha256sum | cut -d' ' -f1");
    random.request.output.spool = 256 << 20;
    let run = node.run(&random);
    let digest = run.text().trim().to_owned();
    assert_eq!(run.ended.output.stderr.bytes, 50_000_000);
    assert_eq!(run.ended.output.stderr.sha256, digest);
    assert_eq!(sha256(&run.stderr()), digest);
    let mut binary = shell(2, "printf '\\000\\377\\200\\r\\n\\r\\303\\050'");
    binary.request.umask = 0;
    assert_eq!(node.run(&binary).stdout(), b"\x00\xff\x80\r\n\r\xc3\x28");
}

#[test]
fn output_beyond_the_limit_is_counted_and_hashed() {
    let mut node = Node::new();
    let mut much = shell(1, "head -c 3000000 /dev/zero; echo e >&2");
    much.request.output.limit = 1_000_000;
    let run = node.run(&much);
    assert_eq!(run.ended.outcome, Outcome::Succeeded { exit_code: 0 });
    let stdout = &run.ended.output.stdout;
    assert_eq!((stdout.bytes, stdout.sha256.clone()), (3_000_000, sha256(&vec![0; 3_000_000])));
    assert_eq!(run.stdout().len() + run.stderr().len(), 1_000_000);
    assert_eq!(run.missing(), 2_000_002);
    assert!(run.records.iter().all(|r| r.head.dropped.is_none_or(|why| why == DropReason::LimitReached)));
}

#[test]
fn a_full_spool_blocks_and_then_drops_the_oldest() {
    let mut node = Node::new();
    let mut much = shell(1, "head -c 10000000 /dev/zero; head -c 1000 /dev/zero >&2");
    much.request.output =
        OutputRules { limit: 1 << 40, spool: 1 << 20, max_block_ms: 400, merge: false, mask: true };
    let run = node.run(&much);
    let output = &run.ended.output;
    assert_eq!(run.ended.outcome, Outcome::Succeeded { exit_code: 0 });
    assert_eq!((output.stdout.bytes, output.stderr.bytes), (10_000_000, 1_000));
    assert!(output.blocked_ms >= 400, "{} ms", output.blocked_ms);
    assert!(output.stdout.dropped > 8_000_000, "{}", output.stdout.dropped);
    assert_eq!(run.missing(), output.stdout.dropped + output.stderr.dropped);
    assert_eq!(run.stdout().len() as u64, output.stdout.bytes - output.stdout.dropped);
    assert_eq!(run.ended.output.stdout.sha256, sha256(&vec![0; 10_000_000]));
}

#[test]
fn releasing_output_unblocks_the_command() {
    let mut node = Node::new();
    let mut much = shell(1, "head -c 20000000 /dev/zero");
    much.request.output =
        OutputRules { limit: 1 << 40, spool: 1 << 20, max_block_ms: 60_000, merge: false, mask: true };
    let attempt = node.launch(&much);
    let mut reader = Reader::open(&attempt).unwrap();
    let mut at = 0;
    let ended = wait_for("the end", || {
        for record in reader.read(at, 1 << 20).unwrap() {
            assert_eq!((record.head.position, record.head.dropped), (at, None));
            at = record.end();
        }
        reader.release(at).unwrap();
        attempt.exit().unwrap().filter(|ended| ended.output.end == at)
    });
    assert_eq!((ended.output.end, ended.output.stdout.dropped), (20_000_000, 0));
    reader.release(at).unwrap();
    assert_eq!(reader.oldest().unwrap(), 20_000_000);
    assert_eq!(reader.read(at, 1).unwrap(), []);
    assert_eq!(std::fs::read_dir(attempt.log()).unwrap().count(), 0, "released output leaves the disk");
}
