use clap::ValueEnum;

/// A server that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    Bare,
    Aula,
    #[value(name = "socket.io")]
    SocketIo,
}

impl Peer {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Aula => "aula",
            Self::SocketIo => "socket.io",
        }
    }
}
