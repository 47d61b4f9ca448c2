//! The HTTP side of a server: accounts, tokens, and plain requests.
#![allow(dead_code, reason = "a harness: each test uses its part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
/// Every test user's password.
pub const PASSWORD: &str = "correct horse battery staple";

#[derive(Clone)]
pub struct Http {
    base: String,
    client: reqwest::Client,
}

#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Http {
    pub fn new(addr: SocketAddr) -> Self {
        let client = reqwest::Client::builder().timeout(LIMIT).no_proxy().build().unwrap();
        Self { base: format!("http://{addr}"), client }
    }

    pub async fn sign_up(&self, username: &str, password: &str) -> (u16, Value) {
        self.post("/api/v1/users", None, &json!({"username": username, "password": password})).await
    }

    /// Logs in; panics if that is refused.
    pub async fn log_in(&self, username: &str, password: &str) -> Tokens {
        let body = json!({"username": username, "password": password});
        let (status, reply) = self.post("/api/v1/sessions", None, &body).await;
        assert!(status == 200 || status == 201, "log-in of {username}: {status} {reply}");
        let text = |name: &str| {
            let value = reply[name].as_str();
            value.unwrap_or_else(|| panic!("no {name} in the log-in's reply")).to_owned()
        };
        Tokens { access: text("access_token"), refresh: text("refresh_token") }
    }

    /// Signs up with the common password and logs in; returns the access token.
    pub async fn new_user(&self, username: &str) -> String {
        let (status, reply) = self.sign_up(username, PASSWORD).await;
        assert_eq!(status, 201, "sign-up of {username}: {reply}");
        self.log_in(username, PASSWORD).await.access
    }

    pub async fn get(&self, path: &str, bearer: Option<&str>) -> (u16, Value) {
        self.call(Method::GET, path, bearer, None).await
    }

    pub async fn post(&self, path: &str, bearer: Option<&str>, body: &Value) -> (u16, Value) {
        self.call(Method::POST, path, bearer, Some(body)).await
    }

    pub async fn delete(&self, path: &str, bearer: Option<&str>) -> (u16, Value) {
        self.call(Method::DELETE, path, bearer, None).await
    }

    /// Status and body: JSON as it is, anything else as a string, nothing as null.
    pub async fn call(&self, method: Method, path: &str, bearer: Option<&str>, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base));
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let failed = |error: reqwest::Error| -> ! { panic!("{method} {path}: {error:?}") };
        let response = request.send().await.unwrap_or_else(|error| failed(error));
        let status = response.status().as_u16();
        let text = response.text().await.unwrap_or_else(|error| failed(error));
        let value = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        (status, value)
    }
}
