use clap::ValueEnum;

/// A server that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    Bare,
    Aula,
    #[value(name = "socket.io")]
    SocketIo,
    /// A server of a few lines on the library that Centrifugo is built on.
    Centrifuge,
    Centrifugo,
}

impl Peer {
    pub const ALL: [Self; 5] = [Self::Bare, Self::Aula, Self::SocketIo, Self::Centrifuge, Self::Centrifugo];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Aula => "aula",
            Self::SocketIo => "socket.io",
            Self::Centrifuge => "centrifuge",
            Self::Centrifugo => "centrifugo",
        }
    }
}
