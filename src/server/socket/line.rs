use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop;

use crate::websocket::{Item, Reader, Role, Violation};

/// Bytes read at once.
const READ: usize = 16 << 10;

thread_local! {
    /// What is read is looked at before the thread does anything else: one buffer is enough for all connections.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// A socket and what has been read of its next message.
pub(super) struct Line {
    pub socket: Arc<TcpStream>,
    reader: Reader,
}

impl Line {
    pub fn new(socket: TcpStream, max_message: usize) -> Self {
        Self { socket: Arc::new(socket), reader: Reader::new(Role::Server, max_message) }
    }

    /// Resolves when there may be something to read; for one task.
    ///
    /// Takes the socket's place for the task that reads, where HTTP has left its own: while it is named there, a task
    /// that has ended keeps its memory, until the client says something.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        poll_fn(|context| self.socket.poll_read_ready(context))
    }

    /// Reads what is there now, and calls `each` for each message of it. Whether there was anything.
    ///
    /// Errors: the socket's (the end of the stream is `UnexpectedEof`), the other side's violations, those of `each`.
    pub fn read<E: From<Violation> + From<io::Error>>(
        &mut self,
        each: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut count = 0;
            let read = self.socket.try_io(Interest::READABLE, || {
                count = rustix::io::read(&self.socket, &mut buffer[..])?;
                // It has no more (epoll(7)): the runtime need not have us ask again.
                if (1..buffer.len()).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match read {
                Ok(()) if count == 0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_nothing) if count == 0 => return Ok(false),
                _ => {}
            }
            self.reader.read(&mut buffer[..count], each)?;
            Ok(true)
        })
    }

    /// The same for bytes that were read before the connection was upgraded.
    pub fn take<E: From<Violation>>(
        &mut self,
        early: &mut [u8],
        each: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.reader.read(early, each)
    }

    /// Writes all of it, where nobody else writes. Whether that was done in time.
    pub async fn write(&self, mut bytes: Bytes, within: Duration) -> bool {
        let write = async {
            while !bytes.is_empty() {
                match self.socket.try_write(&bytes) {
                    Ok(count) => bytes::Buf::advance(&mut bytes, count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                    Err(error) => return Err(error),
                }
            }
            io::Result::Ok(())
        };
        matches!(tokio::time::timeout(within, write).await, Ok(Ok(())))
    }

    /// Reads and forgets until the other side closes or is gone.
    pub async fn until_closed(&mut self) {
        /// Why nothing more is read.
        struct Over;
        impl From<Violation> for Over {
            fn from(_: Violation) -> Self {
                Self
            }
        }
        impl From<io::Error> for Over {
            fn from(_: io::Error) -> Self {
                Self
            }
        }
        while self.readable().await.is_ok() {
            coop::consume_budget().await;
            let read = self.read(|item| if matches!(item, Item::Close(_)) { Err(Over) } else { Ok(()) });
            if read.is_err() {
                break;
            }
        }
    }
}
