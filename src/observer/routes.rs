//! The paths of the metrics address.

use super::exposition;
use super::figures::Figures;
use super::html;
use super::http::{Request, Response, Status};
use super::status;
use serde::Serialize;
use std::time::Instant;

/// Whether a request can be answered at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Now(Response),
    /// When the shards have answered.
    Later,
}

/// Answers a request that came at `since`. If it `must` be answered now, the shards have had time enough.
pub(super) fn reply(request: &Request, since: Instant, figures: &Figures<'_>, now: Instant, must: bool) -> Reply {
    Reply::Now(match request.path.as_str() {
        "/metrics" => {
            let reading = figures.answered_since(since);
            if reading.is_none() && !must {
                return Reply::Later;
            }
            let body = figures.metrics(reading.as_deref(), now);
            Response { content_type: exposition::CONTENT_TYPE, ..Response::text(Status::Ok, body) }
        }
        "/healthz" => health(&figures.late_workers(now)),
        "/readyz" if figures.is_ready() => Response::text(Status::Ok, "ok\n"),
        "/readyz" => Response::text(Status::Unavailable, "not ready\n"),
        "/version" => json(&status::version()),
        "/settings" => json(&status::settings(&figures.context())),
        "/history.json" => match request.parameter("since").map_or(Ok(0.0), str::parse::<f64>) {
            Ok(since) => json(&figures.history(since)),
            Err(_) => Response::text(Status::BadRequest, "since takes Unix seconds\n"),
        },
        "/" | "/status.json" | "/hotkeys" | "/prefixes" | "/latency" => {
            let keys = figures.keys();
            let Some(facts) = figures.facts(&keys, now) else {
                if must {
                    return Reply::Now(Response::text(Status::Unavailable, "there are no figures yet\n"));
                }
                return Reply::Later;
            };
            match request.path.as_str() {
                "/" => {
                    html::page(&serde_json::to_value(facts.status()).expect("numbers and text can be written as JSON"))
                }
                "/hotkeys" => json(&facts.hot_keys()),
                "/prefixes" => json(&facts.prefixes()),
                "/latency" => json(&facts.latencies()),
                _ => json(&facts.status()),
            }
        }
        _ => Response::bare(Status::NotFound),
    })
}

fn health(late: &[usize]) -> Response {
    let names: Vec<String> = late.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => Response::text(Status::Ok, "ok\n"),
        [worker] => Response::text(Status::Unavailable, format!("worker {worker} does not answer\n")),
        workers => Response::text(Status::Unavailable, format!("workers {} do not answer\n", workers.join(", "))),
    }
}

fn json(value: &impl Serialize) -> Response {
    let mut body = serde_json::to_string(value).expect("numbers and text can be written as JSON");
    body.push('\n');
    Response { content_type: "application/json", ..Response::text(Status::Ok, body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_workers_are_named() {
        assert_eq!(health(&[]), Response::text(Status::Ok, "ok\n"));
        assert_eq!(health(&[1]), Response::text(Status::Unavailable, "worker 1 does not answer\n"));
        assert_eq!(health(&[0, 3]).body, "workers 0, 3 do not answer\n");
    }
}
