//! Requests, classic, meta and RESP, appended to a connection's output buffer.

use crate::keys::Keys;
use crate::resp;
use crate::workload::Protocol;

/// Appends one request for all keys of `ids`.
///
/// For several keys of the meta protocol, appends quiet `mg`s and an `mn`. Its reply proves that the missing keys are
/// misses.
pub fn get(protocol: Protocol, keys: &Keys, ids: &[u64], out: &mut Vec<u8>) {
    match protocol {
        Protocol::Classic => {
            out.extend_from_slice(b"get");
            for id in ids {
                out.push(b' ');
                keys.write_key(*id, out);
            }
            out.extend_from_slice(b"\r\n");
        }
        Protocol::Meta => {
            let flags: &[u8] = if ids.len() == 1 { b" v\r\n" } else { b" v q k\r\n" };
            for id in ids {
                out.extend_from_slice(b"mg ");
                keys.write_key(*id, out);
                out.extend_from_slice(flags);
            }
            if ids.len() > 1 {
                out.extend_from_slice(b"mn\r\n");
            }
        }
        Protocol::Resp => resp::get(keys, ids, out),
    }
}

/// Appends the request that stores the value of `id`. `ttl` counts seconds as the protocol does; 0 means forever.
pub fn set(protocol: Protocol, keys: &Keys, id: u64, ttl: u32, out: &mut Vec<u8>) {
    let length = keys.value_length(id) as u64;
    match protocol {
        Protocol::Classic => {
            out.extend_from_slice(b"set ");
            keys.write_key(id, out);
            out.extend_from_slice(b" 0 ");
            write_decimal(u64::from(ttl), out);
            out.push(b' ');
            write_decimal(length, out);
        }
        Protocol::Meta => {
            out.extend_from_slice(b"ms ");
            keys.write_key(id, out);
            out.push(b' ');
            write_decimal(length, out);
            if ttl > 0 {
                out.extend_from_slice(b" T");
                write_decimal(u64::from(ttl), out);
            }
        }
        Protocol::Resp => return resp::set(keys, id, ttl, out),
    }
    out.extend_from_slice(b"\r\n");
    keys.write_value(id, out);
    out.extend_from_slice(b"\r\n");
}

/// Maximum size of a request for one key, without the framing of RESP.
pub fn set_size_max(keys: &Keys) -> usize {
    "set  0 4294967295 1073741824\r\n\r\n".len() + keys.size() + keys.value_size_max()
}

pub fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, write: impl FnOnce(&Keys, &mut Vec<u8>)) {
        let keys = Keys::new(100, 6, (0, 0), 1).expect("valid");
        let mut out = Vec::new();
        write(&keys, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn requests_as_the_protocol_writes_them() {
        check("get key:07\r\n", |keys, out| get(Protocol::Classic, keys, &[7], out));
        check("get key:07 key:10\r\n", |keys, out| get(Protocol::Classic, keys, &[7, 10], out));
        check("mg key:07 v\r\n", |keys, out| get(Protocol::Meta, keys, &[7], out));
        check("mg key:07 v q k\r\nmg key:99 v q k\r\nmn\r\n", |keys, out| get(Protocol::Meta, keys, &[7, 99], out));
        check("set key:07 0 0 0\r\n\r\n", |keys, out| set(Protocol::Classic, keys, 7, 0, out));
        check("set key:07 0 2592000 0\r\n\r\n", |keys, out| set(Protocol::Classic, keys, 7, 2_592_000, out));
        check("ms key:07 0\r\n\r\n", |keys, out| set(Protocol::Meta, keys, 7, 0, out));
        check("ms key:07 0 T60\r\n\r\n", |keys, out| set(Protocol::Meta, keys, 7, 60, out));
        check("*2\r\n$3\r\nGET\r\n$6\r\nkey:07\r\n", |keys, out| get(Protocol::Resp, keys, &[7], out));
        check("*3\r\n$4\r\nMGET\r\n$6\r\nkey:07\r\n$6\r\nkey:99\r\n", |keys, out| {
            get(Protocol::Resp, keys, &[7, 99], out);
        });
        check("*3\r\n$3\r\nSET\r\n$6\r\nkey:07\r\n$0\r\n\r\n", |keys, out| set(Protocol::Resp, keys, 7, 0, out));
        for (ttl, option, digits) in [(60, "$2\r\nEX", "$2\r\n60"), (1_900_000_000, "$4\r\nEXAT", "$10\r\n1900000000")]
        {
            let expected = format!("*5\r\n$3\r\nSET\r\n$6\r\nkey:07\r\n$0\r\n\r\n{option}\r\n{digits}\r\n");
            check(&expected, |keys, out| set(Protocol::Resp, keys, 7, ttl, out));
        }
    }
}
