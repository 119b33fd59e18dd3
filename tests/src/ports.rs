//! Loopback ports for the servers of tests.

use std::fs::{self, File};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// The locks on the ports of this process.
static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A free loopback port that is this process's until it ends: no other test gets it, in this process or in another one, and the
/// kernel does not hand it out while its server is down.
pub fn free_port() -> u16 {
    let folder = std::env::temp_dir().join("sentinel-node-test-ports");
    fs::create_dir_all(&folder).expect("a folder for locks");
    loop {
        // Below those that the kernel hands out.
        let port = fastrand::u16(20_000..32_000);
        let path = folder.join(port.to_string());
        let lock = File::options().create(true).truncate(false).write(true).open(path).expect("a lock");
        // A second lock of this process is refused too: it belongs to the open file.
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;

    /// Two tests of one process once had the same ports: both drew them from its pid, before either had started a server.
    #[test]
    fn threads_that_ask_at_once_get_different_ports() {
        let threads: Vec<_> =
            (0..8).map(|_| thread::spawn(|| (0..200).map(|_| free_port()).collect::<Vec<_>>())).collect();
        let ports: Vec<u16> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let different: BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
    }
}
