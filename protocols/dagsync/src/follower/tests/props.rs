//! Whatever the order of events: the invariants hold, and in the end all is in sync.

use proptest::prelude::*;

use super::{bench::*, world::*};

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![4 => 0u64..10, 2 => 0u64..2_000, 1 => 0u64..200_000];
    (0..KINDS, 0..PUBLISHERS, 0..FEEDS.len(), 1u64..6, any::<usize>(), wait)
        .prop_map(|(kind, publisher, feed, seq, pick, wait_ms)| Step { kind, publisher, feed, seq, pick, wait_ms })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_invariants_hold_and_in_the_end_all_is_in_sync(
        steps in prop::collection::vec(step(), 0..150),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(seed, Bench::new().now);
        for step in steps {
            world.step(step);
        }
        world.heal();
        world.close();
    }

    #[test]
    fn it_can_be_closed_at_any_moment(steps in prop::collection::vec(step(), 0..80), seed in any::<u64>()) {
        let mut world = World::new(seed, Bench::new().now);
        for step in steps {
            world.step(step);
        }
        world.close();
    }

    #[test]
    fn the_same_seed_and_inputs_give_the_same_effects(
        steps in prop::collection::vec(step(), 0..80),
        seed in any::<u64>(),
    ) {
        let now = Bench::new().now;
        let mut worlds = [World::new(seed, now), World::new(seed, now)];
        for world in &mut worlds {
            for step in &steps {
                world.step(*step);
            }
        }
        prop_assert_eq!(&worlds[0].trace, &worlds[1].trace);
    }
}
