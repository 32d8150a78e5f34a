#!/usr/bin/env python3
"""Exact reference for the flight feature vectors (pandas + numpy only).

usage: features_oracle.py DATA_DIR OUT.csv [--from YYYY-MM-DD] [--to YYYY-MM-DD]

One row per flight, asked at q = sched - 1h.  All times are whole minutes since
the epoch (int64) and all sums are int64, so the only rounding is the final
float64 division and the float32 cast when printing.
Rows are ordered by (q, row in flights.csv).  --from/--to select on the UTC date
of q ([from, to)); the features always see the events of the whole year.
"""
import argparse, os
import numpy as np, pandas as pd

H = 60                      # an hour, in minutes
BIG = np.int64(1) << 32     # key * BIG + minute: one int64 ordered by (key, time)
WEATHER = "temp dewp humid wind_speed wind_gust precip pressure visib".split()
FEATURES = """origin_dep_delay_mean_1h origin_dep_count_1h origin_dep_delay_mean_3h
 origin_dep_count_3h carrier_arr_delay_mean_3h carrier_arr_delay_mean_24h
 dest_arr_delay_mean_3h tail_last_dep_delay tail_hours_since_dep""".split() \
 + WEATHER + "carrier origin dest hour weekday distance".split()


def read(data_dir, name):
    path = os.path.join(data_dir, name)
    if not os.path.exists(path):
        path += ".zip"
    return pd.read_csv(path, na_values=["NA"], keep_default_na=False)


def minutes(rfc3339):
    """'2013-01-01T10:00:00Z' -> minutes since the epoch, int64."""
    return pd.to_datetime(rfc3339, utc=True).dt.tz_localize(None).values.astype("M8[m]").astype("i8")


def load_flights(data_dir):
    """flights.csv in file order plus sched, q, departed, arrived (minutes; -1 = never)."""
    f = read(data_dir, "flights.csv")
    f["sched"] = minutes(f.time_hour) + f.minute
    f["q"] = f.sched - H
    dep = f.dep_time.notna() & f.dep_delay.notna()
    arr = dep & f.arr_delay.notna() & f.air_time.notna()
    f["departed"] = np.where(dep, f.sched + f.dep_delay.fillna(0).astype("i8"), -1)
    f["arrived"] = np.where(arr, f.departed + f.air_time.fillna(0).astype("i8") + 25, -1)
    f["id"] = (f.carrier + f.flight.astype(str) + "-" + f.origin + "-"
               + pd.Series(f.sched.values.astype("M8[m]").astype("M8[s]")).dt.strftime("%Y%m%d%H%M"))
    return f


class Events:
    """Events of one kind: int64 prefix sums over (key, time) order; ties in file order."""

    def __init__(self, key, time, value):
        # key: int code per event, -1 = no key -> the event is unreachable
        k = key.astype("i8") * BIG + time
        self.order = np.argsort(k, kind="stable")
        self.k, self.time, self.value = k[self.order], time[self.order], value[self.order]
        self.cum = np.concatenate(([0], np.cumsum(self.value, dtype="i8")))

    def window(self, key, q, width):
        """(sum, count) over (q - width, q]."""
        base = key.astype("i8") * BIG
        lo = np.searchsorted(self.k, base + q - width, "right")
        hi = np.searchsorted(self.k, base + q, "right")
        return self.cum[hi] - self.cum[lo], hi - lo

    def last(self, key, q):
        """index (in sorted order) of the latest event at or before q, -1 if none."""
        base = key.astype("i8") * BIG
        i = np.searchsorted(self.k, base + q, "right") - 1
        return np.where((i >= 0) & (self.k[i] >= base) & (key >= 0), i, -1)


def mean(sum_count):
    s, n = sum_count
    return np.where(n > 0, s / np.maximum(n, 1), np.nan)


def features(data_dir, f=None):
    """One row per flight, in file order; float64 / int64 / str columns."""
    f = load_flights(data_dir) if f is None else f
    q = f.q.values
    code = {c: pd.factorize(f[c])[0] for c in ("origin", "carrier", "dest", "tailnum")}  # NaN -> -1
    d, a = f.departed.values >= 0, f.arrived.values >= 0
    dep = lambda c: Events(code[c][d], f.departed.values[d], f.dep_delay.values[d].astype("i8"))
    arr = lambda c: Events(code[c][a], f.arrived.values[a], f.arr_delay.values[a].astype("i8"))
    out = pd.DataFrame(index=f.index)

    ev = dep("origin")
    for h in (1, 3):
        w = ev.window(code["origin"], q, h * H)
        out[f"origin_dep_delay_mean_{h}h"] = mean(w)
        # Of a key that was never seen all is missing, the count too.
        out[f"origin_dep_count_{h}h"] = np.where(ev.last(code["origin"], q) >= 0, w[1], np.nan)
    ev = arr("carrier")
    for h in (3, 24):
        out[f"carrier_arr_delay_mean_{h}h"] = mean(ev.window(code["carrier"], q, h * H))
    out["dest_arr_delay_mean_3h"] = mean(arr("dest").window(code["dest"], q, 3 * H))

    ev = dep("tailnum")
    i = ev.last(code["tailnum"], q)
    out["tail_last_dep_delay"] = np.where(i >= 0, ev.value[i], np.nan)
    out["tail_hours_since_dep"] = np.where(i >= 0, (q - ev.time[i]) / H, np.nan)

    w = read(data_dir, "weather.csv")
    origin = {o: n for n, o in enumerate(f.origin.unique())}
    wkey = w.origin.map(origin).fillna(-1).values.astype("i8")
    ev = Events(wkey, minutes(w.time_hour), np.arange(len(w)))    # value = row in weather.csv
    i = ev.last(f.origin.map(origin).values, q)
    for c in WEATHER:
        out[c] = np.where(i >= 0, w[c].values[ev.value[i]], np.nan)

    local = pd.Series(f.sched.values.astype("M8[m]").astype("M8[s]")) \
        .dt.tz_localize("UTC").dt.tz_convert("America/New_York")
    for c in ("carrier", "origin", "dest"):
        out[c] = f[c]
    out["hour"], out["weekday"] = local.dt.hour.values, (local.dt.day_of_week.values + 1) % 7  # 0 = Sunday
    out["distance"] = f.distance
    return out[FEATURES]


def text(col):
    """Column -> strings: float32 shortest repr ('' for NaN); ints and strings as they are."""
    if col.dtype.kind != "f":
        return col.astype(str)
    u, inv = np.unique(col.values.astype("f4"), return_inverse=True)
    return np.array(["" if np.isnan(x) else str(x) for x in u], dtype=object)[inv]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("data_dir"), p.add_argument("out")
    p.add_argument("--from", dest="lo"), p.add_argument("--to", dest="hi")
    a = p.parse_args()
    f = load_flights(a.data_dir)
    x = features(a.data_dir, f)
    day = lambda s: np.datetime64(s, "m").astype("i8")
    keep = np.ones(len(f), bool)
    if a.lo: keep &= f.q.values >= day(a.lo)
    if a.hi: keep &= f.q.values < day(a.hi)
    order = np.argsort(f.q.values, kind="stable")
    order = order[keep[order]]
    x = x.iloc[order]
    out = {"id": f.id.values[order],
           "time": pd.Series(f.q.values[order].astype("M8[m]").astype("M8[s]")).dt.strftime("%Y-%m-%dT%H:%M:%SZ").values}
    out.update({c: text(x[c]) for c in FEATURES})
    cols = [np.asarray(v, dtype=object) for v in out.values()]
    with open(a.out, "w") as fh:                # no field needs quoting
        fh.write(",".join(out) + "\n")
        fh.writelines(",".join(r) + "\n" for r in zip(*cols))


if __name__ == "__main__":
    main()
