//! What every Presence promises, tried on the one in memory and on Redis, and what the mirror makes of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "it is a test")]

mod stores;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::presence::redis::{RedisOptions, RedisPresence};
use sentinel_operator::presence::{Presence, PresenceRecord};
use sentinel_protocol::metrics::{DiskMetrics, NodeMetrics};
use sentinel_protocol::time::UnixMillis;
use stores::fixtures::node;
use stores::parts::{parts, unique};
use stores::{Hands, eventually};

const LONG: Duration = Duration::from_mins(1);

fn record(on: &str, heard: i64) -> PresenceRecord {
    PresenceRecord {
        node: node(on),
        session: "s-1".parse().unwrap(),
        last_seen: UnixMillis(heard),
        agent_version: "0.1.0".to_owned(),
        boot_id: "b00t".to_owned(),
        metrics: NodeMetrics {
            cpu_percent: 12.5,
            memory_total: 1 << 40,
            load: [0.25, 1.5, 3.0],
            disks: vec![DiskMetrics {
                mount: "/var/lib \"x\"".into(),
                total: sentinel_protocol::limits::MAX_COUNT,
                available: 1,
            }],
            ..NodeMetrics::default()
        },
    }
}

/// A Presence of its own for one test.
struct Site {
    presence: Arc<dyn Presence>,
    /// Where expiry can be waited for without waiting.
    hands: Option<Hands>,
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $test() {
                    let hands = super::Hands::new();
                    let presence = super::Arc::new(super::MemoryPresence::new(hands.clock()));
                    super::$test(&super::Site { presence, hands: Some(hands) }).await;
                }
            )+
        }

        mod redis {
            $(
                #[tokio::test]
                async fn $test() {
                    let Some(parts) = super::parts(stringify!($test)) else { return };
                    // Letters that Redis would take for a pattern.
                    let options = super::RedisOptions { prefix: super::unique("t[*]?") + ":", ..Default::default() };
                    let presence = super::Arc::new(super::RedisPresence::new(&parts.redis_url, options).unwrap());
                    super::$test(&super::Site { presence: presence.clone(), hands: None }).await;
                    // What a failed test leaves behind expires by itself.
                    let left = super::Presence::list(&*presence).await.unwrap();
                    let nodes = left.into_iter().map(|record| record.node).collect();
                    super::Presence::withdraw(&*presence, nodes).await.unwrap();
                }
            )+
        }
    };
}

contract! {
    it_can_be_checked,
    a_record_is_listed_as_it_was_written_and_the_latest_wins,
    a_withdrawn_node_is_gone_and_the_others_are_not,
    a_record_that_is_not_renewed_expires_and_one_that_is_does_not,
    two_thousand_nodes_are_renewed_in_one_call,
    nothing_to_do_is_done,
}

async fn it_can_be_checked(site: &Site) {
    site.presence.check().await.unwrap();
}

async fn a_record_is_listed_as_it_was_written_and_the_latest_wins(site: &Site) {
    site.presence.renew(vec![record("b", 1), record("a", 1)], LONG).await.unwrap();
    site.presence.renew(vec![record("b", 2)], LONG).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap(), [record("a", 1), record("b", 2)]);
}

async fn a_withdrawn_node_is_gone_and_the_others_are_not(site: &Site) {
    site.presence.renew(vec![record("a", 1), record("b", 1)], LONG).await.unwrap();
    site.presence.withdraw(vec![node("a"), node("never-seen")]).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap(), [record("b", 1)]);
}

async fn a_record_that_is_not_renewed_expires_and_one_that_is_does_not(site: &Site) {
    let short = Duration::from_secs(1);
    site.presence.renew(vec![record("a", 1), record("b", 1)], short).await.unwrap();
    site.presence.renew(vec![record("b", 2)], LONG).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap().len(), 2);
    if let Some(hands) = &site.hands {
        hands.advance(short);
        assert_eq!(site.presence.list().await.unwrap(), [record("b", 2)]);
        return;
    }
    // A real expiry takes its real second.
    let deadline = Instant::now() + Duration::from_secs(10);
    while site.presence.list().await.unwrap() != [record("b", 2)] {
        assert!(Instant::now() < deadline, "it has not expired");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn two_thousand_nodes_are_renewed_in_one_call(site: &Site) {
    let records: Vec<_> = (0..2000).map(|n| record(&format!("node-{n:04}"), n)).collect();
    site.presence.renew(records.clone(), LONG).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap(), records);
}

async fn nothing_to_do_is_done(site: &Site) {
    site.presence.renew(vec![], LONG).await.unwrap();
    site.presence.withdraw(vec![]).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap(), []);
}

/// Redis alone.
mod server {
    use tokio::net::TcpListener;

    use super::*;

    fn quick() -> RedisOptions {
        RedisOptions {
            response_timeout: Duration::from_millis(300),
            connection_timeout: Duration::from_millis(300),
            pause: Duration::from_millis(500),
            ..RedisOptions::default()
        }
    }

    #[test]
    fn a_url_that_is_none_is_refused_at_once_without_its_password() {
        for url in [
            "",
            "localhost:6379",
            "http://x/",
            "redis://user:secret@host:99999/",
            "redis://:secret@h/notanumber",
        ] {
            let error =
                RedisPresence::new(url, quick()).err().unwrap_or_else(|| panic!("{url:?} was accepted"));
            let text = error.to_string();
            assert!(text.starts_with("failed to understand the Redis URL"), "{url:?}: {text}");
            assert!(!text.contains("secret"), "{url:?}: {text}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_and_then_not_asked_for_a_while() {
        let presence = RedisPresence::new("redis://:secret@127.0.0.1:9/", quick()).unwrap();
        let clock = Instant::now();
        let error = presence.renew(vec![record("a", 1)], LONG).await.unwrap_err();
        assert!(clock.elapsed() < Duration::from_secs(1), "{:?}", clock.elapsed());
        assert!(error.to_string().starts_with("unable to renew presence: Redis at 127.0.0.1:9: "), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        let clock = Instant::now();
        for _ in 0..100 {
            assert_eq!(presence.check().await.unwrap_err().category(), "Away");
        }
        assert!(clock.elapsed() < Duration::from_millis(100), "{:?}", clock.elapsed());
    }

    #[tokio::test]
    async fn a_server_that_never_answers_costs_no_more_than_the_time_set() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", silent.local_addr().unwrap());
        let presence = RedisPresence::new(&url, quick()).unwrap();
        let clock = Instant::now();
        let error = presence.check().await.unwrap_err();
        assert!(clock.elapsed() < Duration::from_millis(1500), "{:?}: {error}", clock.elapsed());
    }

    /// A Redis of our own, which may be killed.
    struct Redis {
        program: String,
        port: u16,
        folder: tempfile::TempDir,
        process: Option<std::process::Child>,
    }

    impl Redis {
        fn start(&mut self) {
            let mut command = std::process::Command::new(&self.program);
            command.args(["--bind", "127.0.0.1", "--save", "", "--port", &self.port.to_string(), "--dir"]);
            command.arg(self.folder.path()).stdout(std::process::Stdio::null());
            self.process = Some(command.spawn().unwrap());
        }

        fn kill(&mut self) {
            if let Some(mut process) = self.process.take() {
                process.kill().unwrap();
                process.wait().unwrap();
            }
        }
    }

    impl Drop for Redis {
        fn drop(&mut self) {
            self.kill();
        }
    }

    #[tokio::test]
    async fn a_redis_that_was_killed_is_found_again_by_itself_with_all_that_still_lives() {
        use sentinel_operator::presence::mirror::{MirrorOptions, PresenceMirror};

        let test = "a_redis_that_was_killed_is_found_again…";
        let Some(parts) = parts(test) else { return };
        let Some(program) = parts.bin.get("redis-server").cloned() else {
            eprintln!("NOT TESTED, because the Redis in use is not one to kill: {test}");
            return;
        };
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut redis = Redis { program, port, folder: tempfile::tempdir().unwrap(), process: None };
        let presence = Arc::new(RedisPresence::new(&format!("redis://127.0.0.1:{port}/"), quick()).unwrap());
        let options = MirrorOptions { every: Duration::from_millis(20), ..MirrorOptions::default() };
        let (mirror, work) = PresenceMirror::new(presence.clone(), options);
        let work = tokio::spawn(work.run());
        // Not even there at first, and killed twice.
        for round in 0..3 {
            redis.kill();
            let failed = mirror.status().failed;
            for n in 0..50 {
                mirror.renew(record(&format!("n{n:02}"), round));
            }
            eventually("a flush fails", || mirror.status().failed > failed).await;
            redis.start();
            eventually("all is written", || mirror.status().is_up && mirror.status().queued == 0).await;
            let expected: Vec<_> = (0..50).map(|n| record(&format!("n{n:02}"), round)).collect();
            assert_eq!(presence.list().await.unwrap(), expected, "round {round}");
        }
        work.abort();
    }

    #[tokio::test]
    async fn anybody_finds_a_node_by_its_key_with_its_time_to_live() {
        let Some(parts) = parts("anybody_finds_a_node_by_its_key…") else { return };
        let prefix = unique("keys") + ":";
        let options = RedisOptions { prefix: prefix.clone(), ..RedisOptions::default() };
        let presence = RedisPresence::new(&parts.redis_url, options).unwrap();
        presence.renew(vec![record("web-1", 7)], Duration::from_secs(15)).await.unwrap();
        let client = ::redis::Client::open(parts.redis_url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let key = format!("{prefix}presence:web-1");
        let ttl: i64 = ::redis::cmd("TTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!((14..=15).contains(&ttl), "{ttl} s to live");
        let text: String = ::redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["node"].as_str(), value["lastHeard"].as_i64()), (Some("web-1"), Some(7)));
        presence.withdraw(vec![node("web-1")]).await.unwrap();
    }
}

/// From the gateway to the store.
mod mirror {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt as _;
    use sentinel_operator::clock::Clock;
    use sentinel_operator::presence::mirror::{MirrorOptions, PresenceMirror};
    use sentinel_operator::presence::{Answer, PresenceError};
    use sentinel_protocol::ids::NodeName;

    use super::*;

    /// The Presence in memory with a door before it.
    struct Door {
        inside: MemoryPresence,
        is_shut: AtomicBool,
    }

    impl Door {
        fn new() -> Arc<Self> {
            Arc::new(Self { inside: MemoryPresence::new(Clock::system()), is_shut: AtomicBool::new(false) })
        }

        fn shut(&self, is_shut: bool) {
            self.is_shut.store(is_shut, Ordering::SeqCst);
        }

        fn away(&self) -> Option<PresenceError> {
            self.is_shut.load(Ordering::SeqCst).then(|| PresenceError::Away {
                action: "renew presence",
                host: "door".to_owned(),
                again_in: Duration::ZERO,
            })
        }
    }

    impl Presence for Door {
        fn renew(&self, records: Vec<PresenceRecord>, ttl: Duration) -> Answer<'_, ()> {
            match self.away() {
                Some(error) => std::future::ready(Err(error)).boxed(),
                None => self.inside.renew(records, ttl),
            }
        }

        fn withdraw(&self, nodes: Vec<NodeName>) -> Answer<'_, ()> {
            match self.away() {
                Some(error) => std::future::ready(Err(error)).boxed(),
                None => self.inside.withdraw(nodes),
            }
        }

        fn list(&self) -> Answer<'_, Vec<PresenceRecord>> {
            self.inside.list()
        }

        fn check(&self) -> Answer<'_, ()> {
            self.inside.check()
        }
    }

    fn options() -> MirrorOptions {
        MirrorOptions { ttl: LONG, every: Duration::from_millis(10), max_nodes: 5 }
    }

    #[tokio::test]
    async fn an_outage_keeps_the_latest_of_each_node_and_ends_by_itself() {
        let door = Door::new();
        let (mirror, work) = PresenceMirror::new(door.clone(), options());
        let work = tokio::spawn(work.run());
        mirror.renew(record("a", 1));
        eventually("the first flush", || mirror.status().renewed == 1).await;
        door.shut(true);
        for heard in 2..5 {
            mirror.renew(record("a", heard));
            mirror.renew(record("b", heard));
        }
        eventually("a failed flush", || mirror.status().failed > 1).await;
        let status = mirror.status();
        assert!(!status.is_up && status.last_error.unwrap().contains("door"));
        assert_eq!(door.list().await.unwrap(), [record("a", 1)]);
        // A goodbye during the outage is not forgotten either.
        mirror.withdraw(node("b"));
        mirror.renew(record("c", 9));
        door.shut(false);
        eventually("it is up again", || mirror.status().is_up && mirror.status().queued == 0).await;
        assert_eq!(door.list().await.unwrap(), [record("a", 4), record("c", 9)]);
        assert_eq!(mirror.status().renewed, 3);
        assert!(mirror.status().dropped >= 5, "{:?}", mirror.status());
        work.abort();
    }

    #[tokio::test]
    async fn more_nodes_than_the_bound_are_dropped_and_counted() {
        let door = Door::new();
        let (mirror, work) = PresenceMirror::new(door.clone(), options());
        for n in 0..8 {
            mirror.renew(record(&format!("n{n}"), 1));
        }
        assert_eq!((mirror.status().queued, mirror.status().dropped), (5, 3));
        let work = tokio::spawn(work.run());
        eventually("they are written", || mirror.status().renewed == 5).await;
        work.abort();
    }

    #[tokio::test]
    async fn what_has_expired_while_the_store_was_away_is_not_written() {
        let ttl = Duration::from_millis(200);
        let (mirror, work) = PresenceMirror::new(Door::new(), MirrorOptions { ttl, ..options() });
        mirror.renew(record("a", 1));
        let heard = Instant::now();
        eventually("its time is over", || heard.elapsed() > ttl).await;
        mirror.renew(record("b", 2));
        let work = tokio::spawn(work.run());
        eventually("it is flushed", || mirror.status().queued == 0).await;
        assert_eq!((mirror.status().renewed, mirror.status().dropped), (1, 1));
        work.abort();
    }
}
