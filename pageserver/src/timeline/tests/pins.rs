//! What a branch needs is not taken away (D6).

use ids::{Key, Lsn};

use super::{BRANCH, World, key, layers, set};
use crate::layer::map::{LayerDescription, LayerKind};
use crate::timeline::write::WriteError;

#[tokio::test]
async fn a_layer_stays_that_a_pin_needs() {
    let world = World::created().await;
    let timeline = world.attach().await;
    for lsn in [110, 120, 130] {
        set(&timeline, lsn, key(1), 1);
        timeline.flush().await.unwrap();
    }
    timeline.branch(BRANCH, Lsn(120)).await.unwrap();
    let named = layers(&timeline);
    for layer in &named[..2] {
        let refused = timeline.retire(std::slice::from_ref(layer)).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, WriteError::Pinned { lsn: Lsn(120), .. }));
        assert!(error.to_string().contains(&layer.name), "{error}");
        assert!(world.layer(layer).exists());
    }
    timeline.retire(&named[2..]).await.unwrap();
    assert_eq!(layers(&timeline), named[..2]);

    // Images that come before the pin hold all that the older layers held.
    let image = |keys: (Key, Key), lsn| LayerDescription {
        kind: LayerKind::Image,
        first_key: keys.0,
        last_key: keys.1,
        first_lsn: Lsn(lsn),
        last_lsn: Lsn(lsn),
        name: format!("{lsn}"),
        ..named[0].clone()
    };
    let edit = async |added: Vec<LayerDescription>| {
        let mut writer = timeline.writer.lock().await;
        let change = timeline.change(&mut writer, |manifest| {
            manifest
                .layers
                .retain(|layer| layer.kind == LayerKind::Delta);
            manifest.layers.extend(added);
        });
        change.await.unwrap();
    };
    let (low, high) = ((Key::MIN, key(0)), (key(1), Key::MAX));
    edit(vec![image(low, 110), image(high, 125)]).await;
    assert!(timeline.retire(&named[..1]).await.is_err(), "after the pin");
    edit(vec![image(low, 110)]).await;
    assert!(timeline.retire(&named[..1]).await.is_err(), "other keys");
    edit(vec![image(low, 110), image(high, 115)]).await;
    timeline.retire(&named[..1]).await.unwrap();
}
