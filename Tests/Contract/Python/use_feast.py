"""Uses a node as Feast's remote online store: its SDK, and its HTTP routes as they are called by hand."""
import datetime
import json
import sys
import time

import pandas
import requests
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig
from feast.data_source import PushMode
from feast.types import Float64, Int64, String

address, scratch = sys.argv[1:]
now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def post(path, body):
    return requests.post(address + path, json=body, timeout=30)


def read(body):
    answer = post("/get-online-features", body)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    reply = answer.json()
    return {name: (result["values"], result["statuses"], result["event_timestamps"])
            for name, result in zip(reply["metadata"]["feature_names"], reply["results"], strict=True)}


def wait(body, name, wanted):
    for _ in range(300):
        found = read(body)
        if found[name][1] == wanted:
            return found
        time.sleep(0.05)
    raise AssertionError((found, wanted))


assert requests.get(address + "/health", timeout=30).status_code == 200

driver = Entity(name="driver", join_keys=["driver_id"])
batch = FileSource(path=scratch + "/none.parquet", timestamp_field="event_timestamp")
push = PushSource(name="profiles_push", batch_source=batch)
profile = FeatureView(
    name="driver_profile", entities=[driver], ttl=datetime.timedelta(hours=2), source=push,
    schema=[Field(name="driver_id", dtype=Int64), Field(name="rating", dtype=Float64), Field(name="car", dtype=String)])
rides = FeatureView(
    name="driver_rides", entities=[driver], source=batch,
    schema=[Field(name="driver_id", dtype=Int64), Field(name="rides_1h", dtype=Float64),
            Field(name="fare_mean_1h", dtype=Float64)])
activity = FeatureService(name="driver_activity", features=[profile[["rating"]], rides])
pandas.DataFrame({"driver_id": [0], "rating": [0.0], "car": [""], "event_timestamp": [now]}).to_parquet(
    scratch + "/none.parquet")
store = FeatureStore(config=RepoConfig(
    project="contract", provider="local", registry=scratch + "/registry.db", entity_key_serialization_version=3,
    online_store={"type": "remote", "path": address}))
store.apply([driver, profile, activity])

# What is older than the view allows, what is new, and what says nothing of one feature.
old = now - datetime.timedelta(hours=3)
frame = pandas.DataFrame({
    "driver_id": [7, 1001, 1002], "rating": [3.5, 4.75, None], "car": ["old", "blue", "red"],
    "event_timestamp": [old, now, now]})
store.push("profiles_push", frame, to=PushMode.ONLINE)
# Sent again it counts once.
store.push("profiles_push", frame, to=PushMode.ONLINE)
for number, fare in enumerate([10, 20, 60]):
    at = (now + datetime.timedelta(seconds=number)).isoformat()
    answer = post("/push", {"push_source_name": "driver_rides", "to": "online",
                            "df": {"driver_id": [1001], "fare": [fare], "event_timestamp": [at]}})
    assert answer.status_code == 200 and answer.content == b"", answer.text

names = ["driver_profile:rating", "driver_profile:car"]
keys = {"driver_id": [1001, 1002, 7, 9]}
found = wait({"entities": keys, "features": names}, "rating",
             ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"])
assert found["driver_id"][0] == [1001, 1002, 7, 9] and found["rating"][0] == [4.75, None, None, None], found
assert found["car"][0] == ["blue", "red", None, None], found
assert found["rating"][2][0] == now.strftime("%Y-%m-%dT%H:%M:%SZ"), found
assert found["rating"][2][3] == "1970-01-01T00:00:00Z", found

online = store.get_online_features(
    features=names, entity_rows=[{"driver_id": 1001}, {"driver_id": 1002}, {"driver_id": 9}]).to_dict()
assert online == {"driver_id": [1001, 1002, 9], "rating": [4.75, None, None], "car": ["blue", "red", None]}, online

body = {"entities": {"driver_id": [1001, 9]}, "feature_service": "driver_activity", "full_feature_names": True}
found = wait(body, "driver_rides__rides_1h", ["PRESENT", "NOT_FOUND"])
for _ in range(300):
    if found["driver_rides__rides_1h"][0][0] == 3:
        break
    time.sleep(0.05)
    found = read(body)
assert found["driver_rides__fare_mean_1h"][0] == [30, None], found
assert list(found) == ["driver_id", "driver_profile__rating", "driver_rides__rides_1h", "driver_rides__fare_mean_1h"]
online = store.get_online_features(features=activity, entity_rows=[{"driver_id": 1001}]).to_dict()
assert online["rides_1h"] == [3] and online["rating"] == [4.75], online

versions = post("/get-online-features", {**body, "include_feature_view_version_metadata": True}).json()
assert versions["metadata"]["feature_view_metadata"][0] == {"name": "driver_profile", "version": 1}, versions

for path, sent, status, name in [
    ("/get-online-features", {"entities": keys, "features": ["nothing:x"]}, 404, "FeatureViewNotFoundException"),
    ("/get-online-features", {"entities": keys, "features": ["driver_profile:x"]}, 404, "FeatureViewNotFoundException"),
    ("/get-online-features", {"entities": keys, "feature_service": "x"}, 404, "FeatureServiceNotFoundException"),
    ("/get-online-features", {"entities": {"car": ["x"]}, "features": names}, 404, "EntityNotFoundException"),
    ("/get-online-features", {"entities": keys, "features": ["driver_profile:car", "driver_profile:car"]}, 422,
     "FeatureNameCollisionError"),
    ("/push", {"push_source_name": "x", "df": {"a": [1]}}, 422, "PushSourceNotFoundException"),
]:
    answer = post(path, sent)
    error = json.loads(answer.json())
    assert (answer.status_code, error["class"], error["module"]) == (status, name, "feast.errors"), answer.text
for path, sent in [
    ("/get-online-features", {"entities": [1], "features": names}),
    ("/get-online-features", {"entities": {"driver_id": 1}, "features": names}),
    ("/get-online-features", {"entities": {"driver_id": [1], "b": [1, 2]}, "features": names}),
    ("/push", {"push_source_name": "driver_rides", "df": {"a": [1], "b": [1, 2]}}),
    ("/push", {"push_source_name": "driver_profile", "df": {"driver_id": ["text"]}}),
    ("/materialize-incremental", {}),
]:
    answer = post(path, sent)
    assert answer.status_code == 422, (path, sent, answer.status_code, answer.text)
assert requests.post(address + "/get-online-features", data="{", timeout=30).json()["detail"]
# A page in somebody's browser may send this, and must not write.
text = json.dumps({"push_source_name": "driver_rides", "df": {"driver_id": [1], "fare": [1]}})
assert requests.post(address + "/push", data=text, headers={"Content-Type": "text/plain"}, timeout=30).status_code == 422
moment = now.isoformat()
assert post("/materialize", {"start_ts": moment, "end_ts": moment, "feature_views": ["driver_profile"]}).status_code == 200
assert post("/materialize-incremental", {"end_ts": moment}).status_code == 200
assert post("/materialize", {"feature_views": ["x"], "disable_event_timestamp": True}).status_code == 404
print("all is well")
