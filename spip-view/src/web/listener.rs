//! The address of the page: a TCP port or a unix socket, bound before there are threads and served from the runtime.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use axum::Router;
use tokio::sync::Notify;

use crate::config::Listen;

/// A socket in the runtime.
pub(super) enum Listener {
    Tcp(tokio::net::TcpListener, std::net::SocketAddr),
    Unix(tokio::net::UnixListener, PathBuf),
}

/// A socket that is bound, before there are threads.
pub(super) enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Bound {
    pub(super) fn new(listen: &Listen) -> anyhow::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)
                    .with_context(|| format!("listen: cannot bind {address}; choose another one with --listen"))?;
                if !address.ip().is_loopback() {
                    eprintln!(
                        "spip-view: {address} is reached by others and the page is not encrypted: put a proxy with TLS before it"
                    );
                }
                listener.set_nonblocking(true).context("listen")?;
                Ok(Self::Tcp(listener))
            }
            Listen::Unix(path) => {
                // A socket that a killed process left behind is replaced, anything else is not.
                use std::os::unix::fs::FileTypeExt as _;
                let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
                if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                let listener = std::os::unix::net::UnixListener::bind(path)
                    .with_context(|| format!("listen: cannot bind {}", path.display()))?;
                // Its group may look: a proxy, for example.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
                    .with_context(|| format!("listen: cannot set the mode of {}", path.display()))?;
                listener.set_nonblocking(true).context("listen")?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// Hands the socket to the runtime.
    pub(super) fn listen(self) -> anyhow::Result<Listener> {
        match self {
            Self::Tcp(listener) => {
                let address = listener.local_addr().context("listen: the socket has no address")?;
                Ok(Listener::Tcp(tokio::net::TcpListener::from_std(listener).context("listen")?, address))
            }
            Self::Unix(listener, path) => {
                Ok(Listener::Unix(tokio::net::UnixListener::from_std(listener).context("listen")?, path))
            }
        }
    }
}

impl Listener {
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => format!("http://{address}/"),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    pub(super) fn listen(&self) -> Listen {
        match self {
            Self::Tcp(_, address) => Listen::Tcp(*address),
            Self::Unix(_, path) => Listen::Unix(path.clone()),
        }
    }

    /// Serves until `ended`. Streams that are open then do not hold the end up.
    pub(super) async fn serve(self, router: Router, ended: &Notify) -> anyhow::Result<()> {
        let serve = async {
            match self {
                Self::Tcp(listener, _) => axum::serve(listener, router).await,
                Self::Unix(listener, path) => {
                    let served = axum::serve(listener, router).await;
                    let _ = std::fs::remove_file(path);
                    served
                }
            }
        };
        tokio::select! {
            served = serve => served.context("the server has ended"),
            () = ended.notified() => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_replaced_when_nobody_listens_and_no_other_file_is() {
        let directory = std::env::temp_dir().join(format!("spip-view-listener-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("page.sock");
        let listen = Listen::Unix(path.clone());
        let first = Bound::new(&listen).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o660, "{mode:o}");
        assert!(Bound::new(&listen).is_err(), "the first one still listens");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        // As a killed process leaves it.
        drop(first);
        assert!(path.exists());
        drop(Bound::new(&listen).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "kept").unwrap();
        assert!(Bound::new(&listen).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
