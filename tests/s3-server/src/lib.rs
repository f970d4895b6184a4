//! A server of S3 in this process, over a folder, which can be away.
//!
//! Owns nothing of the protocol: that is another's reading of it (`s3s`). A package of its own, because what tests alone depend on would
//! have much of the workspace compiled twice, with its features and without them.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, anyhow};
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

const ID: &str = "AKIDTEST";

/// What the server takes.
pub const SECRET: &str = "0123456789abcdef";

/// The server; what it holds goes with it.
#[derive(Debug)]
pub struct Server {
    /// `served/`, with a folder for each bucket, and files with credentials.
    folder: tempfile::TempDir,
    address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Server {
    /// With the bucket `records`.
    ///
    /// # Errors
    ///
    /// When there is no folder or no port for it.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir_all(folder.path().join("served/records"))?;
        let mut server = Self {
            folder,
            address: ([127, 0, 0, 1], 0).into(),
            serving: None,
        };
        server.resume().await?;
        Ok(server)
    }

    /// Serves again, under the address that it had.
    ///
    /// # Errors
    ///
    /// When another has taken the port.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.address = listener.local_addr()?;
        let files = FileSystem::new(self.folder.path().join("served"));
        let files = files
            .map_err(|error| anyhow!("{error:?}"))
            .context("no folder to serve")?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ID, SECRET));
        self.serving = Some(tokio::spawn(serve(listener, service.build())));
        Ok(())
    }

    /// Is away: connections that are open end, too.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            _ = serving.await;
        }
    }

    /// Where it is asked.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A file with the credentials of somebody who has this secret, for nobody else to read.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn credentials(&self, secret: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder.path().join(format!("credentials-{}", secret.len()));
        fs::write(&file, format!("{ID}\n{secret}\n"))?;
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        Ok(file)
    }

    /// Where the objects lie whose names begin so.
    #[must_use]
    pub fn objects(&self, prefix: &str) -> PathBuf {
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
