//! A socket that somebody else has read from: what was read comes first.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The socket and the bytes in front of it.
pub(super) struct HandedSocket {
    stream: TcpStream,
    read: Bytes,
    /// Grows with every byte that moves in either direction.
    moved: Arc<AtomicU64>,
}

impl HandedSocket {
    /// Takes a connected socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The descriptor is not a socket, or the runtime has no room for it.
    pub(super) fn new(fd: OwnedFd, read: Bytes, moved: Arc<AtomicU64>) -> io::Result<Self> {
        let stream = StdTcpStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok(Self { stream: TcpStream::from_std(stream)?, read, moved })
    }

    /// Gives the socket back, still non-blocking, with what was not read of the bytes in front.
    ///
    /// # Errors
    /// The runtime could not let go of it.
    pub(super) fn into_parts(self) -> io::Result<(OwnedFd, Bytes)> {
        Ok((OwnedFd::from(self.stream.into_std()?), self.read))
    }

    fn count(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl AsyncRead for HandedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.read.has_remaining() {
            let length = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read.split_to(length));
        } else {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        }
        self.count(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HandedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.count(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.count(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_already_read_come_before_the_socket_and_go_back_unread() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let mut peer = TcpStream::connect(listener.local_addr().expect("addr")).await.expect("connected");
        let (ours, _) = listener.accept().await.expect("accepted");
        let fd = OwnedFd::from(ours.into_std().expect("std"));
        let moved = Arc::new(AtomicU64::new(0));
        let mut socket =
            HandedSocket::new(fd, Bytes::from_static(b"head "), moved.clone()).expect("a socket");
        peer.write_all(b"body").await.expect("written");
        let mut read = [0; 3];
        socket.read_exact(&mut read).await.expect("from the bytes");
        assert_eq!(&read, b"hea");
        let mut read = [0; 6];
        socket.read_exact(&mut read).await.expect("across the border");
        assert_eq!(&read, b"d body");
        assert_eq!(moved.load(Ordering::Relaxed), 9);
        let (_fd, rest) = socket.into_parts().expect("given back");
        assert!(rest.is_empty());
    }
}
