//! Requests and responses of HTTP/1.0 and 1.1, one of each per connection.

use std::fmt::Write;

/// The most bytes of a request line and its headers together.
pub(super) const REQUEST_BYTES_MAX: usize = 8 << 10;
/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The client wants the headers of the response alone.
    pub(super) is_head: bool,
    pub(super) path: String,
    /// What follows the question mark, as it came.
    pub(super) query: String,
}

impl Request {
    /// The value of a parameter of the query, as it came.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The status of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    Timeout,
    TooLarge,
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::Timeout => "408 Request Timeout",
            Status::TooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// Reads a request. `None`: it is not complete.
///
/// # Errors
/// The status that says what is wrong with it.
pub(super) fn parse(input: &[u8]) -> Result<Option<Request>, Status> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(input) {
        Ok(httparse::Status::Complete(len)) if len <= REQUEST_BYTES_MAX => {}
        Ok(httparse::Status::Partial) if input.len() < REQUEST_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Status::TooLarge),
        Err(_) => return Err(Status::BadRequest),
    }
    let has_host = request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"));
    let target = request.path.unwrap_or_default();
    // A request of version 1.1 without a host is wrong by RFC 9112.
    if !target.starts_with('/') || request.version == Some(1) && !has_host {
        return Err(Status::BadRequest);
    }
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Status::MethodNotAllowed),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request { is_head, path: path.to_owned(), query: query.to_owned() }))
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    /// The `Content-Security-Policy` of a page.
    pub(super) policy: Option<String>,
    pub(super) body: String,
}

impl Response {
    /// A response in plain text.
    pub(super) fn text(status: Status, body: impl Into<String>) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", policy: None, body: body.into() }
    }

    /// A response that says no more than its status.
    pub(super) fn bare(status: Status) -> Response {
        Response::text(status, format!("{}\n", status.line()))
    }

    /// The bytes to send.
    pub(super) fn bytes(&self, is_head: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n",
            self.status.line(),
            self.content_type,
            self.body.len()
        );
        if let Some(policy) = &self.policy {
            // Writing to memory cannot fail.
            let _ = write!(head, "Content-Security-Policy: {policy}\r\n");
        }
        if self.status == Status::MethodNotAllowed {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        head.push_str("\r\n");
        if !is_head {
            head.push_str(&self.body);
        }
        head.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_or_refused() {
        let request =
            |path: &str, query: &str| Ok(Some(Request { is_head: false, path: path.into(), query: query.into() }));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(64));
        let long = format!("GET / HTTP/1.1\r\nHost: {}", "a".repeat(9000));
        let whole = format!("GET / HTTP/1.0\r\nA: {}\r\n\r\n", "a".repeat(9000));
        for (input, expected) in [
            ("GET / HTTP/1.0\r\n\r\n", request("/", "")),
            ("GET /a/../b?c=d&e HTTP/1.1\r\nhOST: a\r\n\r\n", request("/a/../b", "c=d&e")),
            ("\r\nGET / HTTP/1.0\n\n", request("/", "")),
            ("HEAD / HTTP/1.0\r\n\r\n", Ok(Some(Request { is_head: true, path: "/".into(), query: String::new() }))),
            ("", Ok(None)),
            ("GET / HTTP/1.1\r\nHost: a\r\n", Ok(None)),
            ("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", Err(Status::MethodNotAllowed)),
            ("OPTIONS / HTTP/1.0\r\n\r\n", Err(Status::MethodNotAllowed)),
            ("GET / HTTP/1.1\r\n\r\n", Err(Status::BadRequest)),
            ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", Err(Status::BadRequest)),
            ("GET http://a/ HTTP/1.0\r\n\r\n", Err(Status::BadRequest)),
            ("GET * HTTP/1.0\r\n\r\n", Err(Status::BadRequest)),
            ("get a\r\n", Err(Status::BadRequest)),
            ("\u{80}\u{81}\r\n\r\n", Err(Status::BadRequest)),
            (&many, Err(Status::TooLarge)),
            (&long, Err(Status::TooLarge)),
            (&whole, Err(Status::TooLarge)),
        ] {
            assert_eq!(parse(input.as_bytes()), expected, "{:.80}", input);
        }
    }

    #[test]
    fn parameters_are_found() {
        let request = Request { is_head: false, path: "/".into(), query: "ab=1&a=2&c".into() };
        assert_eq!(
            (request.parameter("a"), request.parameter("c"), request.parameter("ab")),
            (Some("2"), None, Some("1"))
        );
    }

    #[test]
    fn a_head_has_the_length_of_the_body_and_no_body() {
        let response = Response { policy: Some("default-src 'none'".into()), ..Response::text(Status::Ok, "ok\n") };
        let text = |is_head| String::from_utf8(response.bytes(is_head)).expect("text");
        assert_eq!(text(false), format!("{}ok\n", text(true)));
        assert!(text(true).contains("\r\nContent-Length: 3\r\n") && text(true).ends_with("default-src 'none'\r\n\r\n"));
        let refused = String::from_utf8(Response::bare(Status::MethodNotAllowed).bytes(false)).expect("text");
        assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
    }
}
