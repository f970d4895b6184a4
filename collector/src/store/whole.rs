//! What questions read the store's files through.
//!
//! Owns that every file that counts is read, or the question fails: DataFusion takes a file that is not there for a folder without files, and the
//! answer would lack its rows. And that a file has the name by which it was asked for: below a prefix, [`PrefixStore`] tells the whole
//! one, which DataFusion takes for another file. Refuses to know which files count.
//!
//! [`PrefixStore`]: object_store::prefix::PrefixStore

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// These files.
#[derive(Debug)]
pub(super) struct Whole(pub(super) Arc<dyn ObjectStore>);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[tonic::async_trait]
impl ObjectStore for Whole {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.0.get_opts(location, options).await.map_err(missing)?;
        found.meta.location = location.clone();
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await.map_err(missing)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// Not the error that says so, which is taken for no file at all.
fn missing(error: Error) -> Error {
    match error {
        Error::NotFound { path, .. } => Error::Generic {
            store: "pgwitness",
            source: format!(
                "the store's file {path} is missing: ask again, if a collector may just have put it together with others; or restart the \
                 collector, which refills the store"
            )
            .into(),
        },
        error => error,
    }
}
