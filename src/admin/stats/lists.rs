//! Lists: `stats detail dump`, `stats cachedump`, `stats conns`.

use crate::admin::line::END;
use crate::admin::query::{Answer, Description};
use crate::command::prefixes::PrefixCounts;
use std::collections::BTreeMap;
use std::io::Write;

/// `stats detail dump`
pub(crate) fn detail(answers: Vec<Answer>) -> Vec<u8> {
    let mut total: BTreeMap<Vec<u8>, PrefixCounts> = BTreeMap::new();
    for answer in answers {
        let Answer::Prefixes(prefixes) = answer else { continue };
        for (prefix, PrefixCounts { get, hit, set, del }) in prefixes {
            let sum = total.entry(prefix).or_default();
            sum.get += get;
            sum.hit += hit;
            sum.set += set;
            sum.del += del;
        }
    }
    let mut reply = Vec::new();
    for (prefix, PrefixCounts { get, hit, set, del }) in total {
        reply.extend_from_slice(b"PREFIX ");
        reply.extend_from_slice(&prefix);
        write!(reply, " get {get} hit {hit} set {set} del {del}\r\n").expect("writing to memory cannot fail");
    }
    reply.extend_from_slice(END);
    reply
}

/// `stats cachedump`
pub(crate) fn cold_items(answers: Vec<Answer>) -> Vec<u8> {
    let lists =
        answers.into_iter().filter_map(|answer| if let Answer::List(list) = answer { Some(list) } else { None });
    let mut reply = lists.map(|list| list.lines).next().unwrap_or_default();
    reply.extend_from_slice(END);
    reply
}

/// `stats conns`
pub(crate) fn lines(answers: Vec<Answer>) -> Vec<u8> {
    let mut descriptions: Vec<Description> = Vec::new();
    for answer in answers {
        if let Answer::Connections(some) = answer {
            descriptions.extend(some);
        }
    }
    descriptions.sort_by_key(|description| (!description.accepts, description.fd));
    let mut reply: Vec<u8> = descriptions.into_iter().flat_map(|description| description.lines.into_bytes()).collect();
    reply.extend_from_slice(END);
    reply
}
