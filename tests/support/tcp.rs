//! The service on a port of this machine, for tests of the program.

use std::net::SocketAddr;

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::service::S3Service;
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

use super::service;

/// A server that ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// What the service keeps.
    /// Goes when the server goes; what it holds is the bucket.
    pub(crate) _folder: TempDir,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn start() -> Self {
        let (service, folder) = service::service();
        Self::serve(service, folder)
    }

    pub(crate) fn serve(service: S3Service, folder: TempDir) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((connection, _)) = listener.accept().await else { break };
                let service = service.clone();
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    // A client that goes away is no trouble for a server.
                    drop(server.serve_connection(TokioIo::new(connection), service).await);
                });
            }
        });
        Self { address, _folder: folder, _runtime: runtime }
    }
}
