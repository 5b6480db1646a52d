//! Setup: requests at nginx. Claim: what stands in tuning/nginx/routes.conf. Why it matters:
//! the inner faces trust their caller.

use serde_json::json;

use crate::stand::{Stand, repository};
use crate::support::http;

#[tokio::test]
async fn no_path_leads_to_an_inner_face() {
    let Some(stand) = Stand::ready().await else { return };
    let logic = stand.address("logic-1", "http");
    let body = json!({"cookie": "863d26b7-491b-4254-8906-06051e991faa"});
    assert_eq!(http::post(logic, "/logic/verify", &body).await.status, 401, "it is there, behind nginx");
    let spellings = ["/logic/verify", "/LOGIC/verify", "/%6cogic/verify", "//logic/verify", "/logic"];
    for path in spellings {
        http::post(stand.nginx(), path, &body).await.expect_failure(404, "NOT_FOUND");
    }
    for path in
        ["/metrics", "/readyz", "/debug/echo", "/api/../logic/verify", "/api/v1/push/../../../logic/verify"]
    {
        let answer = http::get(stand.nginx(), path).await.expect("nginx answers");
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn an_unknown_path_below_api_is_refused_by_the_gateway() {
    let Some(stand) = Stand::ready().await else { return };
    let answer = http::get(stand.nginx(), "/api/nothing").await.expect("nginx answers");
    answer.expect_failure(404, "NOT_FOUND");
    assert!(answer.header("content-security-policy").is_some(), "the gateway's own answer: {answer:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_in_the_systems_own_words() {
    let Some(stand) = Stand::ready().await else { return };
    let body = json!({"username": "x".repeat(70_000)});
    http::post(stand.nginx(), "/api/register", &body).await.expect_failure(413, "TOO_LARGE");
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_and_the_own_one_is_not() {
    let Some(stand) = Stand::ready().await else { return };
    let nginx = stand.nginx();
    let own = format!("http://{nginx}");
    for (origin, status) in [("https://evil.example.org", 403), ("http://127.0.0.1:1", 403), (&own, 204)] {
        let answer = http::post_with(nginx, "/api/logout", &[("origin", origin)], "").await;
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
    }
}

#[tokio::test]
async fn the_web_client_comes_from_nginx_as_it_comes_from_a_gateway() {
    let Some(stand) = Stand::ready().await else { return };
    let built = repository().join("web/dist");
    let Ok(page) = std::fs::read_to_string(built.join("index.html")) else {
        println!("not run: the web client is not built; scripts/web build");
        return;
    };
    let (nginx, gateway) = (stand.nginx(), stand.address("gateway-1", "http"));
    let headers = [
        "cache-control",
        "content-security-policy",
        "content-type",
        "x-content-type-options",
        "x-frame-options",
    ];
    let (ours, theirs) = (http::get(nginx, "/").await, http::get(gateway, "/").await);
    let (ours, theirs) = (ours.expect("nginx answers"), theirs.expect("the gateway answers"));
    assert_eq!((ours.status, &ours.text), (200, &page));
    for name in headers {
        assert_eq!(ours.header(name), theirs.header(name), "{name}");
    }
    let assets = std::fs::read_dir(built.join("assets")).expect("a built client has assets");
    let asset = assets.flatten().next().expect("one").file_name().into_string().expect("a plain name");
    let asset = http::get(nginx, &format!("/assets/{asset}")).await.expect("nginx answers");
    assert_eq!(asset.header("cache-control"), Some("public, max-age=31536000, immutable"));
    let missing = http::get(nginx, "/assets/missing.js").await.expect("nginx answers");
    assert_eq!((missing.status, missing.header("cache-control")), (404, None));
}
