import Base
import Streams

/// Three worked examples of typed streams over the flights (docs/streams.md).
package enum FlightStreams {
    private static let hour: Int64 = 3_600_000

    /// How late a carrier runs: after every departure, over the hour before it.
    package static func carrierHours() -> StreamBuilder {
        let flights = StreamBuilder("carrier-hours")
        flights.stream("flights.departed", Departure.self)
            .keyed("carrier") { $0.value.carrier }
            .windowed(by: .sliding(milliseconds: hour))
            .measure(.count("departures"), .of(.mean, "delay") { $0.delay }, .of(.max, "worst") { $0.delay })
            .to("carriers.hourly", type: "carrier.hour")
        return flights
    }

    /// What flights made up or lost in the air: a departure with its arrival, of the same day.
    package static func flown() -> StreamBuilder {
        let flights = StreamBuilder("flown")
        let departures = flights.stream("flights.departed", Departure.self).keyed("flight") { $0.value.id }
        let arrivals = flights.stream("flights.arrived", Arrival.self).keyed("flight") { $0.value.id }
        departures.join(arrivals, before: 0, after: 24 * hour, keepsUnmatched: true)
            .map("made up") { record in
                let (departure, arrival) = (record.value.left, record.value.right)
                var made: [String: JSON] = ["carrier": .string(departure.carrier), "arrived": .bool(arrival != nil)]
                if let start = departure.delay, let end = arrival?.delay { made["madeUp"] = .double(start - end) }
                return JSON.object(made)
            }
            .to("flights.flown", type: "flight.flown")
        return flights
    }

    /// Aircraft that have not departed for two days, and when they were last seen.
    package static func silentAircraft() -> StreamBuilder {
        let flights = StreamBuilder("silent-aircraft")
        flights.stream("flights.departed", Departure.self)
            .keyed("aircraft") { $0.value.tail }
            .process(
                "silence", state: Int64(0), emits: JSON.self,
                timer: { key, at, last, out in
                    guard last + 48 * hour == at.milliseconds else { return }
                    out.emit(["aircraft": .string(key), "since": .string(Instant(milliseconds: last).description)])
                    out.forget()
                },
                { record, last, out in
                    last = record.time.milliseconds
                    out.setTimer(at: record.time + 48 * hour)
                }
            )
            .to("aircraft.silent", type: "aircraft.silent")
        return flights
    }
}
