//! How messages enter floor and baseline: batches over one TCP connection.
//!
//! ```text
//!  bytes of the rest u32 | payloads: length u32, bytes …      little-endian
//! ```
//! Corecast gets its messages by its own public calls; these two have none.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};

/// The sender's end.
pub struct Control {
    stream: TcpStream,
}

impl Control {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sends one batch.
    ///
    /// # Errors
    /// The server is gone.
    pub fn send(&mut self, payloads: &[Vec<u8>]) -> io::Result<()> {
        let mut batch = vec![0; 4];
        for payload in payloads {
            batch.extend_from_slice(&length(payload.len())?);
            batch.extend_from_slice(payload);
        }
        let rest = length(batch.len() - 4)?;
        batch[..4].copy_from_slice(&rest);
        self.stream.write_all(&batch)
    }
}

/// Bytes of the batch whose first four bytes these are.
pub fn batch_bytes(head: [u8; 4]) -> usize {
    u32::from_le_bytes(head) as usize
}

/// The payloads of a batch without its first four bytes; what is cut off is left out.
pub fn payloads(mut batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = batch.split_first_chunk()?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*head) as usize)?;
        batch = rest;
        Some(payload)
    })
}

fn length(bytes: usize) -> io::Result<[u8; 4]> {
    u32::try_from(bytes).map(u32::to_le_bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_batch_arrives_as_it_was_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut control = Control::connect(listener.local_addr().unwrap()).unwrap();
        control.send(&[b"one".to_vec(), Vec::new(), b"three".to_vec()]).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).unwrap();
        let mut batch = vec![0; batch_bytes(head)];
        stream.read_exact(&mut batch).unwrap();
        let found: Vec<&[u8]> = payloads(&batch).collect();
        assert_eq!(found, [&b"one"[..], b"", b"three"]);
        assert_eq!(payloads(&batch[..batch.len() - 1]).count(), 2, "the last byte is missing");
    }
}
