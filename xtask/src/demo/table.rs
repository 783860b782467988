//! The closing table of the demo: what the records say, one line a client.

use std::fmt;

use serde_json::Value;

use super::clients::Visit;

const HEAD: [&str; 6] = ["client", "source", "destination", "bytes", "TLS", "known by"];

/// Visits with their records; a visit without one stays visible.
pub(super) struct Table<'a>(pub(super) &'a [(Visit, Option<Value>)]);

impl Table<'_> {
    /// The visits that left no record.
    pub(super) fn unrecorded(&self) -> usize {
        self.0.iter().filter(|(_, record)| record.is_none()).count()
    }
}

/// `address:port`, with brackets around IPv6; keys are `{side}_ip` and `{side}_port`.
pub(super) fn endpoint(record: &Value, side: &str) -> String {
    let address = record[format!("{side}_ip")].as_str().unwrap_or("?");
    let port = &record[format!("{side}_port")];
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn row(visit: &Visit, record: Option<&Value>) -> [String; 6] {
    let name = visit.name.to_owned();
    let Some(record) = record else {
        let expected = visit.destination.to_string();
        let none = || "-".to_owned();
        return [name, none(), expected, none(), none(), "no record".to_owned()];
    };
    let bytes = match &record["bytes_in"] {
        Value::Null => {
            let hex = record["payload_hex"].as_str().unwrap_or_default();
            (hex.len() / 2).to_string()
        }
        count => count.to_string(),
    };
    let tls = if record["is_tls"] == true { "yes" } else { "no" };
    [
        name,
        endpoint(record, "source"),
        endpoint(record, "destination"),
        bytes,
        tls.to_owned(),
        record["destination_source"].as_str().unwrap_or("?").to_owned(),
    ]
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![HEAD.map(str::to_owned)];
        rows.extend(self.0.iter().map(|(visit, record)| row(visit, record.as_ref())));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for row in &rows {
            let [client, source, destination, bytes, tls, known_by] = row;
            let [a, b, c, d, e, _] = widths;
            writeln!(f, "{client:a$}  {source:b$}  {destination:c$}  {bytes:>d$}  {tls:e$}  {known_by}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::clients::visits;
    use serde_json::json;

    #[test]
    fn a_visit_without_record_is_shown_and_counted() {
        let visit = visits(false)[0];
        let outcomes = [(visit, None)];
        let table = Table(&outcomes);
        assert_eq!(table.unrecorded(), 1);
        assert!(table.to_string().contains("no record"));
    }

    #[test]
    fn a_record_becomes_a_line() {
        let visit = visits(false)[0];
        let record = json!({
            "payload_hex": "0001", "source_ip": "2001:db8::2", "source_port": 40000,
            "destination_ip": "198.51.100.1", "destination_port": 80, "is_tls": true,
            "destination_source": "ebpf",
        });
        let outcomes = [(visit, Some(record))];
        let table = Table(&outcomes).to_string();
        let line = table.lines().nth(1).expect("a line below the head");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[words.len() - 5..], ["[2001:db8::2]:40000", "198.51.100.1:80", "2", "yes", "ebpf"]);
    }
}
