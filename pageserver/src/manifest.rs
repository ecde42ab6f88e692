//! The manifest of a timeline: the document that says which layers it consists of.
//!
//! A manifest is one of a numbered sequence of sealed objects (D1, D3); its number is the
//! generation of the attachment that wrote it. This module is the content, not the sequence.

use ids::{Lsn, TenantId, TimelineId};
use serde::{Deserialize, Serialize};

use crate::layer::map::LayerDescription;

/// The format that is written.
pub(crate) const FORMAT: u32 = 1;

/// Where a branch leaves its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ancestor {
    pub(crate) timeline: TimelineId,
    pub(crate) lsn: Lsn,
}

/// An LSN that must stay readable (D6), and who needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) lsn: Lsn,
    pub(crate) holder: String,
}

/// What a timeline consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) tenant: TenantId,
    pub(crate) timeline: TimelineId,
    /// Tells this writer's put from another's (D3).
    pub(crate) nonce: String,
    pub(crate) postgres_major: u32,
    pub(crate) ancestor: Option<Ancestor>,
    /// Everything at or below is in the layers.
    pub(crate) disk_consistent_lsn: Lsn,
    /// The last record at or below; 0 where a branch has none.
    pub(crate) previous_record: Lsn,
    pub(crate) pins: Vec<Pin>,
    pub(crate) layers: Vec<LayerDescription>,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// Not a manifest.
    #[error("the manifest cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// From a version that this one does not know.
    #[error("the manifest has format {0}, and only {FORMAT} is known")]
    UnknownFormat(u32),
    /// Of another timeline.
    #[error("the manifest is that of timeline {found} of tenant {tenant}")]
    OtherTimeline { tenant: TenantId, found: TimelineId },
    /// A layer reaches above what the manifest claims.
    #[error("layer {layer} ends at {last_lsn}, above the manifest's {consistent}")]
    LayerFromTheFuture {
        layer: String,
        last_lsn: Lsn,
        consistent: Lsn,
    },
}

impl Manifest {
    /// The plaintext of the document.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        assert_eq!(self.format, FORMAT, "only the current format is written");
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads a document that was opened as the manifest of this timeline.
    pub(crate) fn decode(
        bytes: &[u8],
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(ManifestError::UnknownFormat(format));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        if (manifest.tenant, manifest.timeline) != (tenant, timeline) {
            return Err(ManifestError::OtherTimeline {
                tenant: manifest.tenant,
                found: manifest.timeline,
            });
        }
        let consistent = manifest.disk_consistent_lsn;
        match manifest
            .layers
            .iter()
            .find(|layer| layer.last_lsn > consistent)
        {
            Some(layer) => Err(ManifestError::LayerFromTheFuture {
                layer: layer.name.clone(),
                last_lsn: layer.last_lsn,
                consistent,
            }),
            None => Ok(manifest),
        }
    }
}

#[cfg(test)]
mod tests {
    use ids::{FileId, Key};

    use super::*;
    use crate::layer::map::LayerKind;

    const TENANT: TenantId = TenantId([1; 16]);
    const TIMELINE: TimelineId = TimelineId([2; 16]);

    fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            tenant: TENANT,
            timeline: TIMELINE,
            nonce: "n".to_owned(),
            postgres_major: 15,
            ancestor: Some(Ancestor {
                timeline: TimelineId([3; 16]),
                lsn: Lsn(10),
            }),
            disk_consistent_lsn: Lsn(20),
            previous_record: Lsn(0),
            pins: vec![Pin {
                lsn: Lsn(15),
                holder: "branch".to_owned(),
            }],
            layers: vec![LayerDescription {
                kind: LayerKind::Delta,
                name: "layer".to_owned(),
                file_id: FileId([4; 16]),
                sealed_len: 600,
                first_key: Key::MIN,
                last_key: Key::MAX,
                first_lsn: Lsn(11),
                last_lsn: Lsn(20),
                has_gaps: false,
            }],
        }
    }

    #[test]
    fn a_manifest_is_read_back() {
        let bytes = sample().encode().unwrap();
        assert_eq!(
            Manifest::decode(&bytes, TENANT, TIMELINE).unwrap(),
            sample()
        );
    }

    #[test]
    fn a_manifest_of_elsewhere_or_of_a_later_version_is_refused() {
        let bytes = sample().encode().unwrap();
        let other = Manifest::decode(&bytes, TENANT, TimelineId([9; 16]));
        assert!(matches!(other, Err(ManifestError::OtherTimeline { .. })));
        let later = Manifest::decode(br#"{"format":2}"#, TENANT, TIMELINE);
        assert!(matches!(later, Err(ManifestError::UnknownFormat(2))));
    }

    #[test]
    fn a_layer_above_the_consistent_lsn_is_refused() {
        let mut manifest = sample();
        manifest.layers[0].last_lsn = Lsn(21);
        let read = Manifest::decode(&manifest.encode().unwrap(), TENANT, TIMELINE);
        assert!(matches!(
            read,
            Err(ManifestError::LayerFromTheFuture { .. })
        ));
    }
}
