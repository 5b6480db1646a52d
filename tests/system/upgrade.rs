//! Setup: `corecast up`, upgrade requests of every kind. Claim: the WebSocket row of CONTRACT
//! §2. Why it matters: 1008 sends a browser to the login page, so nothing else may.

use tokio_tungstenite::tungstenite::Error;

use crate::support::{Browser, Corecast, GENERAL, Setup, folder};

#[tokio::test]
async fn the_101_repeats_the_cookie_and_hello_follows_on_both_paths() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let account = corecast.account("ann").await;
    for path in ["/api/ws", "/"] {
        let mut browser = Browser::knock(corecast.http(), &account.sid).path(path).open().await;
        let cookie = browser.headers["set-cookie"].to_str().expect("ASCII");
        let expected = format!("sid={}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400", account.sid);
        assert_eq!(cookie, expected, "{path}");
        let hello = browser.hello().await;
        assert_eq!(hello["me"]["id"], account.id.as_str(), "{path}");
        assert_eq!(hello["me"]["username"], "ann");
    }
    let tls = Browser::knock(corecast.http(), &account.sid).header("x-forwarded-proto", "https");
    let browser = tls.open().await;
    assert!(browser.headers["set-cookie"].to_str().expect("ASCII").ends_with("; Secure"));
}

#[tokio::test]
async fn an_absent_or_invalid_cookie_gets_101_and_then_1008() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let mut absent = Browser::stranger(corecast.http()).open().await;
    assert_eq!(absent.closed().await, Some(1008));
    for sid in ["00000000-0000-4000-8000-000000000000", "not-a-uuid", ""] {
        let mut invalid = Browser::knock(corecast.http(), sid).open().await;
        assert_eq!(invalid.closed().await, Some(1008), "{sid:?}");
        let mut invalid = Browser::knock(corecast.http(), sid).v1().open().await;
        assert_eq!(invalid.closed().await, Some(1008), "{sid:?} with corecast.v1");
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused_before_the_101() {
    let data = folder();
    let setup = Setup::new(data.path()).set("gateway.origins", "[\"https://chat.example.org\"]");
    let corecast = setup.start().await;
    let account = corecast.account("ann").await;
    let knock = || Browser::knock(corecast.http(), &account.sid);
    for origin in ["https://evil.example", "null"] {
        let Err(Error::Http(response)) = knock().header("origin", origin).try_open().await else {
            panic!("{origin} was let in");
        };
        assert_eq!(response.status(), 403, "{origin}");
        let body = response.body().as_ref().map(|body| String::from_utf8_lossy(body).into_owned());
        if let Some(body) = body.filter(|body| !body.is_empty()) {
            assert!(body.contains("\"FORBIDDEN\""), "{body}");
        }
    }
    let own = format!("http://{}", corecast.http());
    for origin in ["https://chat.example.org", &own] {
        knock().header("origin", origin).open().await.hello().await;
    }
}

#[tokio::test]
async fn other_paths_have_no_websocket() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let account = corecast.account("ann").await;
    for path in ["/api/nothing", "/debug/echo"] {
        let Err(Error::Http(response)) =
            Browser::knock(corecast.http(), &account.sid).path(path).try_open().await
        else {
            panic!("{path} was upgraded");
        };
        assert_eq!(response.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn corecast_v1_is_picked_only_when_it_is_offered() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let account = corecast.account("ann").await;
    let new = Browser::knock(corecast.http(), &account.sid).v1().open().await;
    assert_eq!(new.headers["sec-websocket-protocol"], "corecast.v1");
    let old = Browser::knock(corecast.http(), &account.sid).open().await;
    assert!(!old.headers.contains_key("sec-websocket-protocol"));
}

#[tokio::test]
async fn echo_behind_its_switch_sends_everything_back() {
    let data = folder();
    let corecast = Setup::new(data.path()).set("debug.echo", true).start().await;
    let mut echo = Browser::stranger(corecast.http()).path("/debug/echo").open().await;
    echo.send_text("text").await;
    assert_eq!(echo.next().await, crate::support::Seen::Text("text".into()));
    for bytes in [0, 125, 126, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
        echo.send_binary(payload.clone()).await;
        assert!(echo.next().await == crate::support::Seen::Binary(payload), "{bytes} bytes");
    }
    let account = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &account.sid).open().await;
    assert!(browser.hello().await["rooms"].as_array().is_some_and(|rooms| rooms[0]["id"] == GENERAL));
}
