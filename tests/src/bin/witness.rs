//! The program that the attack `operator` has nodes run, under many names: it sends what it is and has as one datagram to the
//! socket `seen` beside the directory that its file is in. A socket can be written to where every mount is read-only.
#![allow(missing_docs, reason = "a program")]

use std::io::{self, Read as _};
use std::os::unix::net::UnixDatagram;

use sentinel_tests::attacks::operator::witness::{Witness, socket_of};

fn main() -> io::Result<()> {
    let mut stdin = String::new();
    io::stdin().lock().take(1 << 16).read_to_string(&mut stdin)?;
    let witness = Witness::of_this_process(stdin)?;
    let socket = UnixDatagram::unbound()?;
    socket.connect(socket_of(&witness.exe)?)?;
    let whole = serde_json::to_vec(&witness)?;
    // What is too long for a datagram is no less of a start.
    if socket.send(&whole).is_err() {
        socket.send(&serde_json::to_vec(&witness.shortened())?)?;
    }
    // A few bytes of output, so that the node asks for a log socket.
    println!("seen");
    Ok(())
}
