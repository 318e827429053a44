//! Connections and logins: how many, for how long, and which are refused.

use crate::tool::doctor::finding::{Finding, Outcome, Verdict, times, well};
use crate::tool::doctor::server::{Period, Server};
use crate::tool::show::{count, span};

/// Share of -c from which it is time to act; the dashboards of memcached_exporter warn at the same.
const USED_PERCENT: f64 = 80.0;
/// Fewer new connections a second cost less than a hundredth of a CPU, even with TLS.
const CONNECTIONS_PER_SECOND: f64 = 20.0;
/// A connection takes the kernel as long as two or three requests, so from five on they are most of the work.
const REQUESTS_PER_CONNECTION: f64 = 5.0;
/// A few refused logins are somebody's mistyped password.
const AUTH_ERRORS: f64 = 10.0;

pub(super) fn connections(server: &Server) -> Verdict {
    let (used, limit) = (server.figure("curr_connections")?, server.figure("max_connections")?);
    let percent = 100.0 * used / limit.max(1.0);
    if percent < USED_PERCENT {
        return well(format!("{used} of {limit}"));
    }
    Ok(Outcome::Found(Finding {
        is: format!("The server has {used} connections of the {limit} that it may have (-c)."),
        should: format!("It should have fewer than {USED_PERCENT}% of them."),
        why:
            "A burst of new connections, as after a failure elsewhere, fills the rest, and further clients are refused."
                .into(),
        change: vec![
            format!("flag: -c {:.0}    # with LimitNOFILE= above it", 2.0 * limit),
            "flag: -o idle_timeout=300    # closes connections that clients have forgotten".into(),
        ],
    }))
}

pub(super) fn rejected(server: &Server) -> Verdict {
    let (all, added) = (server.figure("rejected_connections")?, server.added("rejected_connections")?);
    if all == 0.0 {
        return well("none");
    }
    Ok(Outcome::Found(Finding {
        is: format!(
            "The server has refused {} beyond -c since its start, {} of them {}.",
            count(all),
            count(added),
            server.period(Period::Interval)
        ),
        should: "It should refuse none.".into(),
        why: "A client that is refused takes the server for dead: it asks the database, or another server, which \
            lacks the key."
            .into(),
        change: more_connections(server),
    }))
}

pub(super) fn accept_stopped(server: &Server) -> Verdict {
    let all = server.figure("listen_disabled_num")?;
    if all == 0.0 {
        return well("never");
    }
    Ok(Outcome::Found(Finding {
        is: format!(
            "The server has stopped accepting connections {} since its start, for {} in all.",
            count(all),
            span(server.figure("time_in_listen_disabled_us").unwrap_or(0.0) / 1e6)
        ),
        should: "It should never have to.".into(),
        why: "It had as many connections as -c or its open files allow. New clients waited meanwhile, some until \
              their own time-out."
            .into(),
        change: more_connections(server),
    }))
}

fn more_connections(server: &Server) -> Vec<String> {
    let limit = server.figure("max_connections").unwrap_or(1024.0);
    vec![
        format!("flag: -c {:.0}    # with LimitNOFILE= above it", 2.0 * limit),
        "server: stats conns    # who holds them, and how long they have been silent".into(),
        "server: stats reset    # begins the count anew".into(),
    ]
}

pub(super) fn short(server: &Server) -> Verdict {
    let opened = (server.added("total_connections")? - server.own_connections).max(0.0) / server.seconds;
    let each = server.rates.operations / opened.max(1e-9);
    // By Little's law they live for less than a second, on average, if more are opened in one than there are at a time.
    let present = server.figure("curr_connections")?;
    let is_most_of_the_work = each < REQUESTS_PER_CONNECTION;
    if opened < CONNECTIONS_PER_SECOND || (!is_most_of_the_work && opened <= present) {
        return well(format!(
            "{} new connections and {} requests a second",
            count(opened),
            count(server.rates.operations)
        ));
    }
    let each = match is_most_of_the_work {
        true => format!("and send {each:.1} requests over each"),
        false => format!("but have only {present} at a time: most live for less than a second"),
    };
    Ok(Outcome::Found(Finding {
        is: format!("Clients open {} connections a second, {each}.", count(opened)),
        should: "They should keep their connections.".into(),
        why: "Opening and closing a connection costs both sides more than a request does, with TLS ten times as \
              much, and leaves a port of the client unusable for a minute."
            .into(),
        change: vec![
            "clients: persistent connections, or a pool    # PHP: new Memcached('pool')".into(),
            "server: watch connevents    # which clients come and go".into(),
        ],
    }))
}

pub(super) fn auth_errors(server: &Server) -> Verdict {
    let ([errors], period) = server.recent(["auth_errors"], 1.0)?;
    let logins = match period {
        Period::Interval => server.added("auth_cmds")?,
        Period::SinceStart => server.figure("auth_cmds")?,
    };
    // Within the interval each one counts.
    let is_found = errors >= AUTH_ERRORS || (period == Period::Interval && errors > 0.0);
    if !is_found {
        return well(format!("{errors} of {} logins", count(logins)));
    }
    Ok(Outcome::Found(Finding {
        is: format!(
            "The server has refused {} of {} {}.",
            count(errors),
            times(logins.max(errors), "login"),
            server.period(period)
        ),
        should: "It should refuse none.".into(),
        why: "A client has a wrong password and works without the cache, or somebody guesses passwords.".into(),
        change: vec![
            "flag: -v    # its log then tells what goes wrong".into(),
            "kill -HUP PID    # after a change of the file of -Y or --users".into(),
        ],
    }))
}
