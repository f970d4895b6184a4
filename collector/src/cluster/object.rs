//! Objects of the API server, each read by itself.
//!
//! Owns that one that cannot be read costs no other its name: the parts of a list are read together, and a watch goes on behind its
//! words. Refuses what nobody here needs and everybody who writes an object may fill (`managedFields`).

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// An object; or, if it cannot be read, its uid and its version, behind which `kube` goes on.
#[derive(Clone, Debug)]
pub(super) struct Read<K>(Result<K, Box<ObjectMeta>>);

impl<K> Read<K> {
    /// The object, if it could be read.
    pub(super) fn object(&self) -> Option<&K> {
        self.0.as_ref().ok()
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Read<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let read = K::deserialize(&value).map_err(|_| {
            let text = |name: &str| value.get("metadata")?.get(name)?.as_str().map(str::to_owned);
            Box::new(ObjectMeta {
                uid: text("uid"),
                resource_version: text("resourceVersion"),
                ..ObjectMeta::default()
            })
        });
        Ok(Self(read))
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Read<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(of: &()) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &()) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &()) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &()) -> Cow<'_, str> {
        K::plural(of)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(metadata) => metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(metadata) => metadata,
        }
    }
}
