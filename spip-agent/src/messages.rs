//! System messages: what the agent says of itself, in the same stream as the records.
