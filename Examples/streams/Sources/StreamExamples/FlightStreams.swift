import Headrace

/// Three worked examples of typed streams over the flights (docs/streams.md).
public enum FlightStreams {
    private static let hour: Int64 = 3_600_000

    /// How late a carrier runs: after every departure, over the hour before it.
    @Sendable public static func carrierHours() -> StreamBuilder {
        let flights = StreamBuilder("carrier-hours")
        flights.stream("flights.departed", Departure.self)
            .keyed("carrier") { $0.value.carrier }
            .windowed(by: .sliding(milliseconds: hour))
            .measure(.count("departures"), .of(.mean, "delay") { $0.delay }, .of(.max, "worst") { $0.delay })
            .to("carriers.hourly", type: "carrier.hour")
        return flights
    }

    /// The same over the last hour and the last day at once.
    @Sendable public static func carrierDays() -> StreamBuilder { carrierDays(runs: .single) }

    /// - Parameter parallelism: by partition where departures stand in their topic under their carrier.
    public static func carrierDays(runs parallelism: StreamBuilder.Parallelism) -> StreamBuilder {
        let flights = StreamBuilder("carrier-days", runs: parallelism)
        flights.stream("flights.departed", Departure.self)
            .keyed("carrier", keepsPartition: true) { $0.value.carrier }
            .windowed(by: .sliding(milliseconds: hour))
            .measure(
                .count("departures"), .of(.mean, "delay") { $0.delay }, .of(.max, "worst") { $0.delay },
                .count("dayDepartures").over(milliseconds: 24 * hour),
                .of(.mean, "dayDelay") { $0.delay }.over(milliseconds: 24 * hour),
                .of(.max, "dayWorst") { $0.delay }.over(milliseconds: 24 * hour)
            )
            .to("carriers.daily", type: "carrier.day")
        return flights
    }

    /// What flights made up or lost in the air: a departure with its arrival, of the same day.
    @Sendable public static func flown() -> StreamBuilder {
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
    @Sendable public static func silentAircraft() -> StreamBuilder {
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
