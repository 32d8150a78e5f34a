import Base
import EventLog
import Foundation
import Node
import RecordFormat
import Streams
import Testing

/// Topologies of typed streams in a node: beside the workspace's own, one task a partition, through restarts.
@Suite struct StreamServiceTests {
    private let scratch: ScratchDirectory
    private var settings: NodeConfiguration

    init() throws {
        scratch = try ScratchDirectory()
        var settings = NodeConfiguration(
            dataDirectory: scratch.path + "/data", platformTopics: FileManager.default.currentDirectoryPath + "/Topics")
        settings.workspace = scratch.path + "/workspace"
        self.settings = settings
        try FileManager.default.createDirectory(
            atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
        let topics = [("orders", 4), ("prices", 4), ("few", 2)].map { "kind: Topic\nname: \($0)\npartitions: \($1)\n" }
        try Data((topics.joined(separator: "---\n")).utf8)
            .write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
    }

    /// How often and how much each key ordered so far, and its average over ten seconds.
    @Sendable private static func totals() -> StreamBuilder { totals("totals", .byPartition) }

    private static func totals(_ name: String, _ parallelism: StreamBuilder.Parallelism) -> StreamBuilder {
        let orders = StreamBuilder(name, runs: parallelism)
        let keyed = orders.stream("orders", JSON.self)
            .filter("amounts") { record in
                guard let amount = record.value["amount"] else {
                    throw StreamsError("no-amount", "an order has no amount")
                }
                return amount != .null
            }
            .keyedByEvent()
        keyed.windowed(by: .sliding(milliseconds: 10_000))
            .measure(.count("orders"), .of(.sum, "total") { (order: JSON) in order["amount"]?.double })
            .to(name + ".windows", type: "window")
        let amounts = keyed.map("amount") { record -> Double in record.value["amount"]?.double ?? 0 }
        amounts.reduce("sum") { $0 + $1.value }.served(as: "running").changes().to(name + ".sums", type: "sum")
        return orders
    }

    private func node(_ streams: [@Sendable () -> StreamBuilder]) throws -> Node {
        var settings = settings
        settings.streams = streams.map { StreamTopology($0) }
        return try Node(settings)
    }

    private func settle(_ node: Node) async throws {
        for _ in 0..<1000 where !(node.isSettled && node.fold.status.loaded) {
            #expect(node.failures == [])
            try await Task.sleep(for: .milliseconds(10))
        }
        let status = try node.status()
        #expect(node.isSettled, "\(status)")
    }

    private func publish(_ node: Node, _ numbers: Range<Int>, start: Int64) async throws {
        let events = numbers.map { number in
            let data = number % 10 == 7 ? #"{"note":"none"}"# : #"{"amount":\#(number)}"#
            return (
                "orders",
                NewEvent(
                    id: "o\(number)", source: "test", type: "order",
                    time: Instant(milliseconds: start + Int64(number) * 100), key: [UInt8]("k\(number % 13)".utf8),
                    data: [UInt8](data.utf8))
            )
        }
        _ = try await node.gateway.publish(events, principal: "p")
    }

    private func lines(_ node: Node, _ topic: String) throws -> [String: [JSON]] {
        var found: [String: [JSON]] = [:]
        for partition in 0..<node.log.partitions(of: topic) {
            try node.log.forEachEvent(TopicPartition(topic, partition)) { event in
                let key = String(decoding: event.key ?? [], as: UTF8.self)
                found[key, default: []].append(try JSON(parsing: event.data ?? []))
                return true
            }
        }
        return found
    }

    @Test func tasksFoldTheirPartitions() async throws {
        let start = Instant.wallClock().milliseconds - 100_000
        for round in 0..<3 {
            // Each round is a life of the node: state, positions and outputs go on where they were. The last one begins with
            // older state, as a crash between an output and its checkpoint leaves it: what is emitted again is recognised.
            let (state, older) = (scratch.path + "/data/streams", scratch.path + "/older")
            if round == 1 { try FileManager.default.copyItem(atPath: state, toPath: older) }
            if round == 2 {
                try FileManager.default.removeItem(atPath: state)
                try FileManager.default.copyItem(atPath: older, toPath: state)
            }
            let node = try node([Self.totals])
            try node.start()
            try await publish(node, round * 60..<(round + 1) * 60, start: start)
            try await settle(node)
            #expect(node.streams.map(\.folds.count) == [4])
            #expect(node.log.partitions(of: "totals.sums") == 4 && node.gateway.isReserved("totals.sums"))
            let answer = try node.replay(to: nil, processor: "totals")
            #expect(answer["verdict"] == "EXACT" && (answer["storesCompared"]?.int ?? 0) > 8, "\(answer)")
            try await checkTravel(node, (round + 1) * 60, start)
            node.stop()
        }
        let node = try node([Self.totals])
        let sums = try lines(node, "totals.sums")
        let windows = try lines(node, "totals.windows")
        #expect(sums.count == 13)
        for key in 0..<13 {
            let amounts = (0..<180).filter { $0 % 13 == key && $0 % 10 != 7 }
            var sum = 0
            let running = amounts.map { amount -> JSON in
                sum += amount
                return .int(Int64(sum))
            }
            #expect(sums["k\(key)"]?.compactMap(\.int) == running.compactMap(\.int))
            let counts = amounts.map { now in amounts.filter { $0 <= now && $0 > now - 100 }.count }
            #expect(windows["k\(key)"]?.compactMap { $0["orders"]?.int } == counts.map { Int64($0) })
        }
        // What an operator threw at is a letter of the stream, and is found with the others.
        let letters = try node.letters(topic: "orders", code: nil, all: true, limit: 100)["letters"]?.array ?? []
        #expect(letters.count == 18 && letters.allSatisfy { $0["code"] == "no-amount" }, "\(letters.first ?? .null)")
        #expect(letters.first?["position"]?.string?.hasPrefix("totals.unfolded/") == true)
        // The state as it was stored is compared where no node runs.
        let answer = try node.replay(to: nil, processor: "totals")
        #expect(answer["verdict"] == "EXACT" && (answer["storesCompared"]?.int ?? 0) > 8, "\(answer)")
        #expect(try node.topology()["streams"]?.array?.count == 1)
        #expect(errorCode { _ = try node.replay(to: nil, processor: "nothing") } == "unknown-stream")
        let forged = try await node.gateway.publish(
            [("totals.sums", NewEvent(id: "x", source: "s", type: "t", time: Instant.wallClock(), data: [0x31]))],
            principal: "p")
        if case .refused(let reason)? = forged.first {
            #expect(reason.code == "reserved-topic")
        } else {
            Issue.record("an output was written by somebody else")
        }
        node.stop()
    }

    /// A served table tells what it held at any time, or behind any event, as counting up to there would have it.
    private func checkTravel(_ node: Node, _ published: Int, _ start: Int64) async throws {
        func sum(_ key: Int, below end: Int) -> Double? {
            let amounts = (0..<end).filter { $0 % 13 == key && $0 % 10 != 7 }
            return amounts.isEmpty ? nil : Double(amounts.reduce(0, +))
        }
        func view(_ key: Int, _ asOf: String?) async throws -> Double? {
            do {
                return try await node.view(stream: "totals", view: "running", key: "k\(key)", asOf: asOf)["value"]?
                    .double
            } catch let error as NodeError where error.code == "unknown-key" {
                return nil
            }
        }
        for key in [0, 5, 12] {
            #expect(try await view(key, nil) == sum(key, below: published))
            for end in [0, 1, key, key + 1, 31, published - 1] {
                let moment = Instant(milliseconds: start + Int64(end) * 100)
                #expect(
                    try await view(key, moment.description) == sum(key, below: min(end + 1, published)), "\(key) \(end)"
                )
            }
        }
        // Behind each of a partition's events.
        var seen: [Int: Double] = [:]
        var behind: [(position: String, key: Int, sum: Double?)] = []
        try node.log.forEachEvent(TopicPartition("orders", 2)) { event in
            guard !event.isProgress, let key = Int(String(decoding: (event.key ?? []).dropFirst(), as: UTF8.self))
            else {
                return true
            }
            if let amount = try JSON(parsing: event.data ?? [])["amount"]?.double { seen[key, default: 0] += amount }
            if event.offset % 5 == 0 { behind.append(("orders/2@\(event.offset)", key, seen[key])) }
            return true
        }
        for (position, key, sum) in behind {
            #expect(try await view(key, position) == sum)
            let replay = try node.replay(to: position, processor: "totals")
            #expect(replay["verdict"] == "EXACT", "\(replay)")
        }
        #expect(behind.count > 1)
        #expect(await asyncErrorCode { _ = try await view(0, "orders/2@99999") } == "bad-position")
        #expect(await asyncErrorCode { _ = try await view(0, "prices/0@1") } == "no-input")
        #expect(await asyncErrorCode { _ = try await view(0, "yesterday") } == "bad-time")
        #expect(
            await asyncErrorCode { _ = try await node.view(stream: "totals", view: "x", key: "k", asOf: nil) }
                == "unknown-view")
    }

    /// A fold that has nothing to do answers at once, not when it next looks up.
    @Test func anIdleFoldAnswersAtOnce() async throws {
        let node = try node([Self.totals])
        try node.start()
        try await publish(node, 0..<20, start: Instant.wallClock().milliseconds - 100_000)
        try await settle(node)
        var waits: [Duration] = []
        for _ in 0..<50 {
            try await Task.sleep(for: .milliseconds(1))
            let begun = ContinuousClock.now
            // The fold's own wait: what Swift's pool adds, which other tests fill just now, says nothing of it.
            _ = try node.streams[0].folds[1].askBlocking(\.now)
            waits.append(ContinuousClock.now - begun)
        }
        #expect(waits.sorted()[25] < .milliseconds(5), "\(waits.sorted())")
        node.stop()
    }

    @Test func mistakesAreNamedBeforeAnythingRuns() throws {
        func code(_ streams: @Sendable () -> StreamBuilder...) -> String? { errorCode { try node(streams).stop() } }
        #expect(
            code({
                let builder = StreamBuilder("a")
                builder.stream("nowhere", JSON.self).to("out", type: "t")
                return builder
            }) == "unknown-topic")
        #expect(
            code({
                let builder = StreamBuilder("a", runs: .byPartition)
                builder.stream("orders", JSON.self).keyed("other") { $0.value["x"]?.string }.table()
                    .changes().to("out", type: "t")
                return builder
            }) == "rekeyed")
        #expect(
            code({
                let builder = StreamBuilder("a", runs: .byPartition)
                builder.stream("orders", JSON.self).keyedByEvent()
                    .join(builder.stream("few", JSON.self).keyedByEvent(), before: 0, after: 0)
                    .to("out", type: "t")
                return builder
            }) == "not-copartitioned")
        #expect(
            code({
                let builder = StreamBuilder("a")
                builder.stream("headrace.late", JSON.self).to("out", type: "t")
                return builder
            }) == "derived-input")
        func copy(_ name: String, _ input: String, _ output: String) -> @Sendable () -> StreamBuilder {
            {
                let builder = StreamBuilder(name)
                builder.stream(input, JSON.self).to(output, type: "t")
                return builder
            }
        }
        #expect(code(copy("a", "y", "x"), copy("b", "x", "y")) == "derived-cycle")
        #expect(code(copy("a", "orders", "x"), copy("b", "prices", "x")) == "two-writers")
        #expect(
            code(
                {
                    let builder = StreamBuilder("a", runs: .byPartition)
                    builder.stream("orders", JSON.self).keyed("other") { $0.value["x"]?.string }.stream
                        .to("x", type: "t")
                    return builder
                },
                {
                    let builder = StreamBuilder("b", runs: .byPartition)
                    builder.stream("x", JSON.self).keyedByEvent().table().changes().to("y", type: "t")
                    return builder
                }) == "rekeyed")
        #expect(code({ Self.totals("a", .single) }, { Self.totals("a", .single) }) == "two-streams")
        #expect(
            code({
                let builder = StreamBuilder("a", runs: .byKey(tasks: 2))
                builder.stream("orders", JSON.self).keyedByEvent().table().changes().keyed("other") { _ in "x" }
                    .table().changes().to("x", type: "t")
                return builder
            }) == "rekeyed")
        #expect(
            code({
                let builder = StreamBuilder("a", runs: .byKey(tasks: 2))
                let orders = builder.stream("orders", JSON.self)
                orders.keyedByEvent().table().changes().keyed("other") { _ in "x" }.stream.merge(orders)
                    .to("x", type: "t")
                return builder
            }) == "rekeyed")
        #expect(code({ Self.totals("a", .byKey(tasks: 0)) }) == "bad-tasks")
        #expect(
            code({
                let builder = StreamBuilder("a", runs: .byPartition)
                builder.stream("orders", JSON.self).to("few", type: "t")
                return builder
            }) == "bad-partitions")
    }

    /// Tasks that share the keys, which stand under others in the topic: each key in one of them, also what they cannot fold, and
    /// what they write can be read by partition.
    @Test func tasksShareKeys() async throws {
        let sizes: @Sendable () -> StreamBuilder = {
            let orders = StreamBuilder("sizes", runs: .byKey(tasks: 3))
            orders.stream("orders", JSON.self)
                .map("amount") { record -> Double in
                    guard let amount = record.value["amount"]?.double else {
                        throw StreamsError("no-amount", "an order has no amount")
                    }
                    return amount
                }
                .keyed("size") { "s\(Int($0.value) % 5)" }
                .reduce("sum") { $0 + $1.value }.served(as: "bySize").changes().to("sizes.sums", type: "sum")
            return orders
        }
        let counts: @Sendable () -> StreamBuilder = {
            let sums = StreamBuilder("counts", runs: .byPartition)
            sums.stream("sizes.sums", Double.self).keyedByEvent().map("one") { _ in 1.0 }.reduce("count") {
                $0 + $1.value
            }
            .served(as: "count")
            return sums
        }
        let start = Instant.wallClock().milliseconds - 100_000
        for round in 0..<2 {
            let node = try node([sizes, counts])
            try node.start()
            try await publish(node, round * 60..<(round + 1) * 60, start: start)
            try await settle(node)
            let published = (round + 1) * 60
            let taken = (0..<published).filter { $0 % 10 != 7 }
            for size in 0..<5 {
                let numbers = taken.filter { $0 % 5 == size }
                func view(_ stream: String, _ view: String, _ asOf: String? = nil) async throws -> Double? {
                    try await node.view(stream: stream, view: view, key: "s\(size)", asOf: asOf)["value"]?.double
                }
                #expect(try await view("sizes", "bySize") == Double(numbers.reduce(0, +)))
                #expect(try await view("counts", "count") == Double(numbers.count))
                let moment = Instant(milliseconds: start + 30 * 100).description
                #expect(
                    try await view("sizes", "bySize", moment) == Double(numbers.filter { $0 <= 30 }.reduce(0, +)))
            }
            var letters: Set<String> = []
            var count = 0
            for partition in 0..<3 {
                try node.log.forEachEvent(TopicPartition("sizes.unfolded", partition)) { event in
                    letters.insert(event.id)
                    count += 1
                    return true
                }
                try node.log.forEachEvent(TopicPartition("sizes.sums", partition)) { event in
                    #expect(murmur2Partition(event.key ?? [], partitions: 3) == partition)
                    return true
                }
            }
            #expect(count == published / 10 && letters.count == count)
            let status = try node.status()["streams"]?.array?.first { $0["name"] == "sizes" }
            #expect(status?["failures"]?.int == Int64(count) && status?["folded"]?.int == Int64(published))
            for stream in ["sizes", "counts"] {
                let replay = try node.replay(to: nil, processor: stream)
                #expect(replay["verdict"] == "EXACT" && (replay["storesCompared"]?.int ?? 0) > 5, "\(replay)")
            }
            node.stop()
        }
        // Another number of tasks is another stream.
        #expect(
            errorCode {
                try node([
                    {
                        let orders = StreamBuilder("sizes", runs: .byKey(tasks: 4))
                        orders.stream("orders", JSON.self).keyed("size") { _ in "x" }.table().changes()
                            .to("sizes.sums", type: "sum")
                        return orders
                    }
                ]).stop()
            } == "in-force")
    }

    /// A stream that reads what another one writes, in the order of event time with what producers write; the second goes on
    /// when the first is quiet. The workspace folds it, too.
    @Test func streamsReadStreams() async throws {
        let reader: @Sendable () -> StreamBuilder = {
            let builder = StreamBuilder("hourly")
            let sums = builder.stream("totals.sums", Double.self).keyed("all") { _ in "all" }
            sums.windowed(by: .tumbling(milliseconds: 1000)).measure(.count()).to("sums.counted", type: "count")
            return builder
        }
        let view = """
            ---
            kind: Topic
            name: sums.counted
            ---
            kind: FeatureView
            name: counted
            topic: sums.counted
            key: "'all'"
            aggregates:
              - {name: windows, function: count, window: 1h}
            """
        let file = URL(filePath: scratch.path + "/workspace/w.yaml")
        try (String(contentsOf: file, encoding: .utf8) + view).write(to: file, atomically: true, encoding: .utf8)
        let start = Instant.wallClock().milliseconds / 1000 * 1000 - 100_000
        for round in 0..<2 {
            // The reader first: the order in which a program names them is of no matter.
            let node = try node([reader, Self.totals])
            try node.start()
            try await publish(node, round * 50..<(round + 1) * 50, start: start)
            try await settle(node)
            for name in ["totals", "hourly", nil] {
                let answer = try node.replay(to: nil, processor: name)
                #expect(answer["verdict"] == "EXACT", "\(answer)")
            }
            let counts = try lines(node, "sums.counted")["all"]?.compactMap { $0["count"]?.int } ?? []
            // Ten orders a second, one in ten without an amount; what is newest is still open.
            #expect(
                counts.count >= (round + 1) * 5 - 1 && counts.dropFirst().dropLast().allSatisfy { $0 == 9 }, "\(counts)"
            )
            let features = try await node.features(view: "counted", key: "all")
            #expect(
                features["features"]?["windows"]?.int ?? features["windows"]?.int == Int64(counts.count), "\(features)")
            node.stop()
        }
        // Without the program the topic is still the stream's.
        let node = try node([])
        #expect(node.gateway.isReserved("totals.sums") && node.gateway.isReserved("hourly.progress"))
        node.stop()
    }

    /// A stream that may leave nothing out ends before what it cannot fold, at every start, until its processor is mended.
    @Test func aStreamMayStopAtAFailure() async throws {
        func strict(_ isMended: Bool) -> @Sendable () -> StreamBuilder {
            {
                let builder = StreamBuilder("strict", onFailure: .stop)
                builder.stream("orders", JSON.self).map("amount") { record -> Double in
                    guard let amount = record.value["amount"]?.double ?? (isMended ? 0 : nil) else {
                        throw StreamsError("no-amount", "an order has no amount")
                    }
                    return amount
                }.to("strict.amounts", type: "amount")
                return builder
            }
        }
        let start = Instant.wallClock().milliseconds - 100_000
        for round in 0..<3 {
            let node = try node([strict(round == 2)])
            try node.start()
            if round == 0 { try await publish(node, 0..<20, start: start) }
            for _ in 0..<500 where round < 2 ? node.failures.isEmpty : !node.isSettled {
                try await Task.sleep(for: .milliseconds(10))
            }
            if round < 2 {
                let reason = node.failures.first ?? ""
                #expect(reason.contains("no-amount") && reason.contains("stopped-at-failure"), "\(node.failures)")
            }
            node.stop()
        }
        let node = try node([strict(true)])
        var amounts = 0
        for partition in 0..<node.log.partitions(of: "strict.amounts") {
            try node.log.forEachEvent(TopicPartition("strict.amounts", partition)) { _ in
                amounts += 1
                return true
            }
        }
        #expect(amounts == 20 && node.log.partitions(of: "strict.amounts") == 1)
        node.stop()
    }

    /// A topology that is another than the one that wrote its outputs cannot go on in their place.
    @Test func aChangedTopologyIsRefused() async throws {
        var first = try node([{ Self.totals("totals", .single) }])
        try first.start()
        try await publish(first, 0..<20, start: Instant.wallClock().milliseconds - 100_000)
        try await settle(first)
        first.stop()
        #expect(errorCode { try node([Self.totals]).stop() } == "in-force")
        // Under a new name it folds everything from the beginning, beside the old one.
        first = try node([{ Self.totals("totals", .single) }, { Self.totals("totals2", .byPartition) }])
        try first.start()
        try await settle(first)
        #expect(try lines(first, "totals.sums") == lines(first, "totals2.sums"))
        first.stop()
    }
}
