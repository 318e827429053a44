//! What browsers may do with the page.

use super::http::{Response, Status};
use super::page::render;
use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use std::sync::LazyLock;

/// The policy of the page, whatever it shows.
static POLICY: LazyLock<String> = LazyLock::new(|| policy(&render(&Value::Null)));

/// The page at `/` with the status of the server.
pub(super) fn page(status: &Value) -> Response {
    Response {
        content_type: "text/html; charset=utf-8",
        policy: Some(POLICY.clone()),
        ..Response::text(Status::Ok, render(status))
    }
}

/// The Content-Security-Policy of a page: its own scripts and styles may run, and it may ask this server. Give it the page
/// without any data: a script that comes in with data must not run.
fn policy(html: &str) -> String {
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action \
         'none'; frame-ancestors 'none'",
        hashes(html, "script"),
        hashes(html, "style")
    )
}

/// The hashes of all elements of a name that have their text in the page, or `'none'`.
fn hashes(html: &str, element: &str) -> String {
    let (opening, closing) = (format!("<{element}"), format!("</{element}>"));
    let parts = html.split(&opening).skip(1).filter_map(|part| {
        let (attributes, rest) = part.split_once('>')?;
        // Another element may begin with the same letters.
        let is_it = attributes.is_empty() || attributes.starts_with(' ');
        let (text, _) = rest.split_once(&closing)?;
        is_it.then(|| format!("'sha256-{}'", BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref())))
    });
    let hashes: Vec<String> = parts.collect();
    if hashes.is_empty() { "'none'".to_owned() } else { hashes.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_allows_the_page_itself() {
        let html = "<style>b</style><script defer>alert(1)</script><scripty>no</scripty><script>abc</script>";
        let policy = policy(html);
        // The digests are those of sha256sum.
        assert!(policy.contains("style-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='"), "{policy}");
        assert!(policy.contains("'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='; style-src"), "{policy}");
        assert_eq!(policy.matches("sha256-").count(), 3, "{policy}");
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("connect-src 'self'"), "{policy}");
        assert!(super::policy("<p>").contains("script-src 'none'; style-src 'none'"));
    }

    #[test]
    fn the_policy_of_the_page_allows_its_script_and_its_style_alone() {
        let response = page(&serde_json::json!({"server": {"host": "<script>alert(1)</script>"}}));
        assert_eq!(policy(&response.body), *POLICY, "the page has a script or a style that came with data");
        assert!(response.policy.is_some_and(|policy| policy.matches("'sha256-").count() == 2));
    }
}
