mod bench;
mod heads;
mod props;
mod syncs;
