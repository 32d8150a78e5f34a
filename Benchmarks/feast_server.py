"""Serves five features of three airports from Feast's own Python server (SQLite store), the peer of our online reads.
usage: feast_server.py FOLDER PORT; it runs until it is stopped."""
import datetime
import os
import subprocess
import sys

import pandas
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64, String

folder, port = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
names = ["a", "b", "c", "d", "e"]
pandas.DataFrame(
    {"origin": ["JFK", "LGA", "EWR"], "event_timestamp": [now - datetime.timedelta(minutes=5)] * 3}
    | {name: [1.5, 2.5, 3.5] for name in names}).to_parquet(folder + "/data.parquet")
with open(folder + "/feature_store.yaml", "w") as file:
    file.write(
        f"project: bench\nprovider: local\nregistry: {folder}/registry.db\nentity_key_serialization_version: 3\n"
        f"online_store: {{type: sqlite, path: {folder}/online.db}}\n")
airport = Entity(name="origin", join_keys=["origin"])
view = FeatureView(
    name="departures", entities=[airport], ttl=datetime.timedelta(days=1),
    source=FileSource(path=folder + "/data.parquet", timestamp_field="event_timestamp"),
    schema=[Field(name="origin", dtype=String)] + [Field(name=name, dtype=Float64) for name in names])
store = FeatureStore(repo_path=folder)
store.apply([airport, view])
store.materialize(now - datetime.timedelta(hours=1), now)
os.execv(sys.executable, [
    sys.executable, "-m", "feast.cli.cli", "-c", folder, "serve", "--host", "127.0.0.1", "--port", port, "--no-access-log"])
