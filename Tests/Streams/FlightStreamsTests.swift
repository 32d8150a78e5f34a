import Base
import Catalog
import Connectors
import EventLog
import Foundation
import Gateway
import Privacy
import RecordFormat
import StreamExamples
import Streams
import Testing

/// The worked examples over the first days of the real flights, against recounts of the same log.
@Suite(.enabled(if: flightsDirectory != nil)) struct FlightStreamsTests {
    private final class Collector: DerivedSink {
        var made: [(key: String, time: Instant, data: JSON)] = []
        var others: [String] = []
        func take(_ event: DerivedEvent) throws {
            guard event.topic != SideTopics.platform.digests else { return }
            let data = try JSON(parsing: event.event.data ?? [])
            if event.topic.hasPrefix("headrace.") { others.append(data.text) }
            made.append((String(decoding: event.event.key ?? [], as: UTF8.self), event.event.time, data))
        }
        func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
        func flush(_ consumed: () -> [TopicPartition: Int64]) {}
    }

    private let scratch: ScratchDirectory
    private let log: EmbeddedLog
    private let departures: [(time: Int64, data: JSON)]
    private let arrivals: [String: (time: Int64, delay: Double)]

    init() throws {
        scratch = try ScratchDirectory()
        log = try EmbeddedLog.open(scratch.path + "/log")
        let gateway = Gateway(
            log: log, keys: try KeyStore(DiskVolume(scratch.path + "/keys")), clock: { Instant.wallClock() })
        for directory in ["Topics", "Examples/flights"] {
            for definition in try Workspace.read(directory: directory) where definition.kind == TopicDefinition.kind {
                try gateway.declare(try TopicDefinition(definition), reserved: directory == "Topics")
            }
        }
        let text = try String(contentsOfFile: "Connectors/flights.json", encoding: .utf8)
            .replacingOccurrences(of: "${HEADRACE_FLIGHTS}", with: try #require(flightsDirectory))
        let source = try CSVHistorySource(
            try ConnectorConfiguration([UInt8](text.utf8), place: "flights.json")
                .with("until", "2013-01-06T00:00:00Z"), log: log, gateway: gateway)
        source.run()
        #expect(source.status.state == "FINISHED")
        var departures: [(time: Int64, data: JSON)] = []
        var arrivals: [String: (time: Int64, delay: Double)] = [:]
        for partition in 0..<log.partitions(of: "flights.departed") {
            try log.forEachEvent(TopicPartition("flights.departed", partition)) { event in
                guard !event.isProgress else { return true }
                departures.append((event.time.milliseconds, try JSON(parsing: event.data ?? [])))
                return true
            }
        }
        for partition in 0..<log.partitions(of: "flights.arrived") {
            try log.forEachEvent(TopicPartition("flights.arrived", partition)) { event in
                guard !event.isProgress else { return true }
                let data = try JSON(parsing: event.data ?? [])
                arrivals[data["id"]?.string ?? ""] = (event.time.milliseconds, data["arr_delay"]?.double ?? 0)
                return true
            }
        }
        self.departures = departures.sorted { $0.time < $1.time }
        self.arrivals = arrivals
    }

    private func run(_ builder: StreamBuilder) throws -> Collector {
        let collector = Collector()
        let runner = try TopologyRunner(
            topology: Topology(name: "t", stages: [builder.build()], answers: [], attachments: []), derived: [],
            log: log, database: try StateDatabase(path: nil), sink: collector)
        while try runner.runSlice() {}
        #expect(collector.others == [] && departures.count > 3000)
        return collector
    }

    @Test func carrierHoursAreRecounts() throws {
        let made = try run(FlightStreams.carrierHours()).made
        #expect(made.count == departures.count)
        var byCarrier: [String: [(time: Int64, delay: Double?)]] = [:]
        for departure in departures {
            byCarrier[departure.data["carrier"]?.string ?? "", default: []]
                .append((departure.time, departure.data["dep_delay"]?.double))
        }
        // The last answer of an instant has all of its departures.
        var last: [String: JSON] = [:]
        for answer in made { last["\(answer.key) \(answer.time.milliseconds)"] = answer.data }
        for (carrier, list) in byCarrier {
            for departure in list.filter({ $0.time % 7 == 0 }) {
                let inside = list.filter { $0.time > departure.time - 3_600_000 && $0.time <= departure.time }
                let delays = inside.compactMap(\.delay)
                let answer = last["\(carrier) \(departure.time)"]
                #expect(answer?["departures"]?.int == Int64(inside.count) && answer?["worst"]?.double == delays.max())
                #expect(answer?["delay"]?.double == delays.reduce(0, +) / Double(delays.count))
            }
        }
    }

    @Test func flightsFindTheirArrivals() throws {
        let made = try run(FlightStreams.flown()).made
        let arrived = departures.filter { departure in
            arrivals[departure.data["id"]?.string ?? ""].map {
                $0.time >= departure.time && $0.time <= departure.time + 86_400_000
            } ?? false
        }
        #expect(made.filter { $0.data["arrived"] == true }.count == arrived.count && arrived.count > 3000)
        let madeUp = made.compactMap { $0.data["madeUp"]?.double }.reduce(0, +)
        let expected = arrived.map { departure in
            (departure.data["dep_delay"]?.double ?? 0) - (arrivals[departure.data["id"]?.string ?? ""]?.delay ?? 0)
        }.reduce(0, +)
        #expect(madeUp == expected, "whole minutes add up exactly")
    }

    @Test func silentAircraftAreThoseWithAGap() throws {
        let made = try run(FlightStreams.silentAircraft()).made
        // The history is complete through what its last progress says, somewhat behind its last departure.
        var end: Int64 = 0
        try log.forEachEvent(TopicPartition("flights.departed", 0)) { event in
            guard event.isProgress, let through = try JSON(parsing: event.data ?? [])["through"]?.string else {
                return true
            }
            end = max(end, Instant(through)?.milliseconds ?? 0)
            return true
        }
        var byTail: [String: [Int64]] = [:]
        for departure in departures {
            if let tail = departure.data["tailnum"]?.string { byTail[tail, default: []].append(departure.time) }
        }
        var expected = 0
        for times in byTail.values {
            for (index, time) in times.enumerated() {
                let next = index + 1 < times.count ? times[index + 1] : Int64.max
                if next > time + 172_800_000, time + 172_800_000 <= end { expected += 1 }
            }
        }
        #expect(made.count == expected && expected > 100, "\(made.count) \(expected)")
    }
}
