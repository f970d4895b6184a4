//! A server of S3 in this process, over a folder, which can be away.

use std::{net::SocketAddr, path::PathBuf};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use crate::config::StoreConfig;

const ID: &str = "AKIDTEST";
const SECRET: &str = "0123456789abcdef";

pub(super) struct Server {
    /// `served/`, with a folder for each bucket, and files with credentials.
    folder: tempfile::TempDir,
    address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Server {
    /// With the bucket `records`.
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("served/records")).unwrap();
        let mut server = Self {
            folder,
            address: ([127, 0, 0, 1], 0).into(),
            serving: None,
        };
        server.resume().await;
        server
    }

    /// Serves again, under the address that it had.
    pub(super) async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let files = FileSystem::new(self.folder.path().join("served")).unwrap();
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ID, SECRET));
        self.serving = Some(tokio::spawn(serve(listener, service.build())));
    }

    /// Is away: connections that are open end, too.
    pub(super) async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        _ = serving.await;
    }

    pub(super) fn store(&self, prefix: &str) -> StoreConfig {
        self.store_as(prefix, SECRET)
    }

    pub(super) fn store_as(&self, prefix: &str, secret: &str) -> StoreConfig {
        use std::os::unix::fs::PermissionsExt as _;
        let credentials = self.folder.path().join(format!("credentials-{}", secret.len()));
        std::fs::write(&credentials, format!("{ID}\n{secret}\n")).unwrap();
        std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).unwrap();
        StoreConfig {
            url: Some(format!("s3://records/{prefix}")),
            endpoint: Some(format!("http://{}", self.address)),
            allow_http: true,
            credentials: Some(credentials),
            ..StoreConfig::default()
        }
    }

    /// Where the objects lie whose names begin so.
    pub(super) fn objects(&self, prefix: &str) -> PathBuf {
        self.folder.path().join("served/records").join(prefix)
    }
}

/// Dropped, it ends its connections.
async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let service = service.clone();
        connections.spawn(async move {
            // A client that goes away is no error of the server.
            _ = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}
