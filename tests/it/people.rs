//! A server with some users: what most tests begin with.
#![allow(dead_code, reason = "a harness: each test uses its part of it")]

use std::collections::HashMap;

use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::server::{Builder, Server};

pub struct People {
    pub server: Server,
    pub http: Http,
    tokens: HashMap<String, String>,
}

impl People {
    /// Starts a server and signs these up. Their number is not what sign-ups are limited by.
    pub async fn on(builder: Builder, names: &[&str]) -> Self {
        let server = builder.env("AULA_AUTH_LOGINS_PER_MINUTE", 100_000).start();
        let http = Http::new(server.addr());
        let mut people = Self { server, http, tokens: HashMap::new() };
        people.sign_up(names).await;
        people
    }

    pub async fn new(names: &[&str]) -> Self {
        Self::on(Server::builder(), names).await
    }

    pub async fn sign_up(&mut self, names: &[&str]) {
        for name in names {
            let token = self.http.new_user(name).await;
            self.tokens.insert((*name).to_owned(), token);
        }
    }

    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    /// Connects and waits for the welcome.
    pub async fn client(&self, name: &str, encoding: Encoding) -> Client {
        Client::connect(self.server.addr(), name, self.token(name), encoding).await
    }
}
