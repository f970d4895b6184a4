//! Where a collector's store lies: the folder `store` of its data folder, or a bucket.
//!
//! Owns the file `store.json` in the data folder, by which commands that read the folder find the same store, and the move from one place to
//! another: what lies at the former one is deleted, because nothing would be erased from it any more. Everything else of a collector
//! stays in the data folder, whatever this says.

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use object_store::{ObjectStore, memory::InMemory};

use super::{Store, StoreOptions, bucket::Bucket};
use crate::{config::StoreConfig, log::Origin};

/// Where the store of a data folder lies.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    data: PathBuf,
    /// With a URL; nothing where it is a folder.
    bucket: Option<StoreConfig>,
}

impl Site {
    /// As the configuration says.
    ///
    /// # Errors
    ///
    /// When a relative path in it leads nowhere.
    pub(crate) fn configured(data: &Path, config: &StoreConfig) -> anyhow::Result<Self> {
        let mut bucket = config.url.is_some().then(|| config.clone());
        // Commands find the same files from where they are called.
        if let Some(bucket) = &mut bucket {
            for file in [&mut bucket.credentials, &mut bucket.ca].into_iter().flatten() {
                *file = std::path::absolute(&*file)?;
            }
        }
        Ok(Self {
            data: data.to_owned(),
            bucket,
        })
    }

    /// As the collector over this folder left it.
    ///
    /// # Errors
    ///
    /// When the file that says so cannot be read.
    pub(crate) fn recorded(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(RECORD);
        let bucket = match std::fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice::<StoreConfig>(&text).with_context(|| {
                format!(
                    "{} does not say where the store is: delete it, and start the collector with its configuration",
                    path.display()
                )
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self {
            data: data.to_owned(),
            bucket,
        })
    }

    /// Opens the store here and seals on its own from then on, as [`Store::open`]; what is at the place where it was before is deleted. The
    /// caller has the data folder for itself.
    ///
    /// # Errors
    ///
    /// When it cannot be kept here, or what is at the former place cannot be deleted.
    pub(crate) async fn open(&self, options: StoreOptions) -> anyhow::Result<Arc<Store>> {
        let bucket = self.claimed().await?;
        let former = Self::recorded(&self.data)?;
        if !former.is_at(self) {
            former.leave().await?;
        }
        self.record()?;
        match bucket {
            Some(bucket) => Store::over(bucket.objects(), options)
                .await
                .with_context(|| format!("cannot use the store in {self}")),
            None => Store::open(&self.folder(), options).await,
        }
    }

    /// Opens the store without ever writing to it, if it is there: a collector may be using it.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is another log's.
    pub(crate) async fn open_read_only(&self) -> anyhow::Result<Arc<Store>> {
        let Some(bucket) = self.bucket()? else {
            return Store::open_read_only(&self.folder()).await;
        };
        let is_there = bucket.is_of(&self.log()?).await?;
        let objects: Arc<dyn ObjectStore> = match is_there {
            true => bucket.objects(),
            false => Arc::new(InMemory::new()),
        };
        Store::reading_from(objects)
            .await
            .with_context(|| format!("cannot read the store in {self}"))
    }

    /// Deletes the store.
    ///
    /// # Errors
    ///
    /// When that is not possible, or it is another log's.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        if let Some(bucket) = self.claimed().await? {
            return bucket.clear().await;
        }
        let folder = self.folder();
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete {}", folder.display()))
            }
            _ => Ok(()),
        }
    }

    async fn leave(&self) -> anyhow::Result<()> {
        tracing::info!(former = %self, "the store moves: what is at its former place is deleted, and it is refilled from the evidence log");
        self.clear().await.with_context(|| {
            format!(
                "until now the store was in {self}, and it cannot be deleted there: what is erased from the record would stay in it. Let it be \
                 reached once more; or delete it by other means, and then {}",
                self.data.join(RECORD).display()
            )
        })
    }

    fn is_at(&self, other: &Self) -> bool {
        let place = |site: &Self| {
            let bucket = site.bucket.as_ref();
            bucket.map(|bucket| (bucket.url.clone(), bucket.endpoint.clone()))
        };
        place(self) == place(other)
    }

    fn record(&self) -> anyhow::Result<()> {
        let path = self.data.join(RECORD);
        let record = || -> io::Result<()> {
            let Some(bucket) = &self.bucket else {
                return match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            };
            // Not by way of `tmp/`, which is the log's while it runs.
            let unfinished = self.data.join(UNFINISHED);
            let mut file = File::create(&unfinished)?;
            file.write_all(&serde_json::to_vec_pretty(bucket)?)?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
            File::open(&self.data)?.sync_all()
        };
        record().with_context(|| format!("cannot write {}", path.display()))
    }

    fn bucket(&self) -> anyhow::Result<Option<Bucket>> {
        self.bucket.as_ref().map(Bucket::at).transpose()
    }

    /// The bucket, if it is one, which is this log's by then.
    async fn claimed(&self) -> anyhow::Result<Option<Bucket>> {
        let bucket = self.bucket()?;
        if let Some(bucket) = &bucket {
            bucket.claim(&self.log()?).await?;
        }
        Ok(bucket)
    }

    fn log(&self) -> anyhow::Result<Origin> {
        let evidence = self.data.join("evidence");
        Origin::read(&evidence).with_context(|| {
            format!(
                "{} does not say which log this is",
                evidence.join("origin").display()
            )
        })
    }

    fn folder(&self) -> PathBuf {
        self.data.join("store")
    }
}

/// As people write it.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bucket) = &self.bucket else {
            return write!(f, "{}", self.folder().display());
        };
        write!(f, "{}", bucket.url.as_deref().unwrap_or_default())?;
        match &bucket.endpoint {
            Some(endpoint) => write!(f, " ({endpoint})"),
            None => Ok(()),
        }
    }
}

/// Below the data folder; not there where the store is a folder.
const RECORD: &str = "store.json";
const UNFINISHED: &str = "store.json.next";
