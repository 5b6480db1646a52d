//! HTTP requests by an independent client, and accounts.

use std::net::SocketAddr;
use std::sync::OnceLock;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub text: String,
}

/// A registered user with a session.
#[derive(Clone, Debug)]
pub struct Account {
    /// The session's secret.
    pub sid: String,
    /// User id.
    pub id: String,
    /// As registered.
    pub username: String,
    /// As registered.
    pub email: String,
    /// As registered.
    pub password: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// First header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `sid` of its `Set-Cookie`.
    #[track_caller]
    pub fn sid(&self) -> String {
        let cookie = self.header("set-cookie").unwrap_or_else(|| panic!("no cookie in {self:?}"));
        let value = cookie.strip_prefix("sid=").and_then(|rest| rest.split(';').next());
        value.unwrap_or_else(|| panic!("no sid in {cookie:?}")).to_owned()
    }

    /// Fails unless it is a failure of CONTRACT §2 with this status and id, and a message.
    #[track_caller]
    pub fn expect_failure(&self, status: u16, id: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body["id"], id, "{self:?}");
        let message = body["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "a failure says why: {self:?}");
        message.to_owned()
    }
}

impl Account {
    /// Registers `name` at the gateway with an email of its own.
    pub async fn register(gateway: SocketAddr, logic: SocketAddr, name: &str) -> Self {
        let (email, password) = (format!("{name}@example.org"), format!("password of {name}"));
        let body = json!({"username": name, "email": email, "password": password});
        let answer = post(gateway, "/api/register", &body).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        let sid = answer.sid();
        let verified = post(logic, "/logic/verify", &json!({"cookie": sid})).await.json();
        let id = verified["user_id"].as_str().expect("a session has a user").to_owned();
        Self { sid, id, username: name.to_owned(), email, password }
    }
}

/// POST with a JSON body.
pub async fn post(addr: SocketAddr, path: &str, body: &Value) -> Answer {
    let request = request(Method::POST, addr, path).header("content-type", "application/json");
    finish(request.body(body.to_string())).await.expect("the server answers")
}

/// POST with headers.
pub async fn post_with(addr: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = request(Method::POST, addr, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    finish(request.body(body.to_owned())).await.expect("the server answers")
}

/// GET.
///
/// # Errors
/// No connection, or none that lasts.
pub async fn get(addr: SocketAddr, path: &str) -> Result<Answer, reqwest::Error> {
    finish(request(Method::GET, addr, path)).await
}

fn request(method: Method, addr: SocketAddr, path: &str) -> RequestBuilder {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    // One connection per request: a pool would outlive the runtime of the test that filled it.
    let client = CLIENT.get_or_init(|| {
        let builder = Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(super::DEADLINE);
        builder.build().expect("a plain client")
    });
    client.request(method, format!("http://{addr}{path}"))
}

async fn finish(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    Ok(Answer {
        status: response.status().as_u16(),
        headers: headers.collect(),
        text: response.text().await?,
    })
}
