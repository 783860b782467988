//! Records of spip for whoever reads them: how a log is read back, without the sensor that wrote it.
#![forbid(unsafe_code)]

pub mod log;
