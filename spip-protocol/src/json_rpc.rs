//! JSON-RPC over plain TCP, and Stratum, its dialect of miners.
//!
//! Decides at the end of the first JSON value: an object with a method, which is one of mining, or beside a version.

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry of Stratum.
pub(super) static STRATUM: Protocol = Protocol {
    name: "stratum",
    recognise: |reader| Ok(is_mining(request(reader)?.as_ref())),
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"EWBF 0.3.4b\",null]}\n",
        b"{\"worker\": \"eth1.0\", \"jsonrpc\": \"2.0\", \"params\": [\"0x9c\"], \"id\": 2, \"method\": \"eth_submitLogin\"}\n",
        b"{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"login\",\"params\":{\"login\":\"4A\",\"pass\":\"x\",\"agent\":\"XMRig/6\"}}\n",
    ],
};

/// The registry's entry of everything else.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "jsonrpc",
    recognise: |reader| Ok(request(reader)?.is_some_and(|request| request.contains_key("jsonrpc"))),
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[b"{\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"params\": [\"Testing!\"], \"id\": 0}"],
};

/// The longest first value that is read.
const VALUE_BYTES: usize = 4096;

type Request = serde_json::Map<String, serde_json::Value>;

/// The first value, if it is an object with a method.
fn request(reader: &mut Reader<'_>) -> Result<Option<Request>, End> {
    let mut first = *reader;
    if first.u8()? != b'{' {
        return Ok(None);
    }
    let Some(bytes) = object(reader)? else { return Ok(None) };
    let Ok(request) = serde_json::from_slice::<Request>(bytes) else { return Ok(None) };
    let has_method = request.get("method").is_some_and(serde_json::Value::is_string);
    Ok(has_method.then_some(request))
}

/// The bytes of an object up to the brace that closes it; `None` when they are none or more than [`VALUE_BYTES`].
fn object<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, End> {
    let mut ahead = *reader;
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for length in 1..=VALUE_BYTES {
        let byte = ahead.u8()?;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return reader.take(length).map(Some);
                }
            }
            // No control character stands in a string, and between values only white space does.
            b'\t' | b'\n' | b'\r' if !in_string => {}
            byte if byte < b' ' => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

fn is_mining(request: Option<&Request>) -> bool {
    let Some(request) = request else { return false };
    let method = request.get("method").and_then(serde_json::Value::as_str).unwrap_or_default();
    let is_login = || {
        let parameters = request.get("params").and_then(serde_json::Value::as_object);
        method == "login" && parameters.is_some_and(|parameters| parameters.contains_key("login"))
    };
    method.starts_with("mining.")
        || matches!(method, "eth_submitLogin" | "eth_getWork" | "eth_submitHashrate")
        || is_login()
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let Some(request) = request(&mut Reader::new(bytes))? else { return Ok(()) };
    let text = |value: Option<&serde_json::Value>| value.and_then(serde_json::Value::as_str).map(str::to_owned);
    if let Some(method) = text(request.get("method")) {
        out.details.text("method", method.as_bytes());
    }
    let parameters = request.get("params");
    // XMRig and its kind put name, password and program into the parameters; the others put the name first.
    let named = |key: &str| text(parameters.and_then(|parameters| parameters.get(key)));
    if let Some(agent) = named("agent") {
        out.details.text("agent", agent.as_bytes());
    }
    if let Some(user) = named("login") {
        out.credentials.add(Some(user.as_bytes()), named("pass").as_deref().map(str::as_bytes));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_miner_shows_wallet_and_program() {
        let understanding = understand(STRATUM.samples[2], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        assert_eq!(details, r#"{"method":"login","agent":"XMRig/6"}"#);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("4A"), Some("x")));
    }

    #[test]
    fn json_without_a_method_stays_unknown() {
        for bytes in [
            b"{\"a\":1}\n".as_slice(),
            b"{\"method\":1,\"jsonrpc\":\"2.0\"}",
            b"{\"jsonrpc\":\"2.0\"}",
            b"{ not json }",
        ] {
            assert_eq!(understand(bytes, false).protocol, None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn nested_values_cost_no_stack() {
        let mut bytes = b"{\"a\":".to_vec();
        bytes.resize(3000, b'[');
        bytes.resize(5996, b']');
        bytes.push(b'}');
        assert_eq!(understand(&bytes, false).protocol, None);
    }
}
