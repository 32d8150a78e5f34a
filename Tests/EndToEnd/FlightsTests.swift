import Base
import EventLog
import Foundation
import RecordFormat
import Testing

/// The first 45 days of flights, played once for all tests that need them.
final class FirstDays: Sendable {
    static let until = "2013-02-14T00:00:00Z"
    static let shared: FirstDays? = try? FirstDays()
    let scratch: ScratchDirectory
    let print: [String: String]

    var data: String { scratch.path + "/data" }

    init() throws {
        scratch = try ScratchDirectory()
        let node = try FlightsNode(data: scratch.path + "/data", until: Self.until)
        node.process.waitUntilExit()
        guard node.process.terminationStatus == 0 else {
            throw EventLogError("test", "the play failed: \(node.errors)")
        }
        print = try fingerprint(scratch.path + "/data")
    }

    func copy() throws -> ScratchDirectory {
        let target = try ScratchDirectory()
        for name in ["log", "views.sqlite", "state.sqlite"] {
            try FileManager.default.copyItem(atPath: data + "/" + name, toPath: target.path + "/" + name)
        }
        return target
    }
}
extension HeavyTests {
    @Suite(.serialized, .enabled(if: flightsDirectory != nil, "the flights data is not there")) struct FlightsTests {
        private func first() throws -> FirstDays {
            try #require(FirstDays.shared, "the first 45 days could not be played")
        }

        /// Every vector of January against an oracle that knows nothing of streams.
        @Test(.enabled(if: python != nil, "./test makes the Python environment")) func januaryEqualsPandas() throws {
            let days = try first()
            let oracle = days.scratch.path + "/oracle.csv"
            let made = try run(
                python!,
                [
                    projectDirectory + "/Tests/EndToEnd/Oracle/features_oracle.py", flightsDirectory!, oracle, "--from",
                    "2013-01-01", "--to", "2013-02-01",
                ])
            try #require(made.status == 0, "\(made.errors)")
            var options = EmbeddedLog.Options()
            options.readOnly = true
            let log = try EmbeddedLog.open(days.data + "/log", options: options)
            var lines = ""
            try log.forEachEvent(TopicPartition("questions.asked", 0)) { event in
                guard event.time < Instant("2013-02-01T00:00:00Z")! else { return false }
                lines += String(decoding: event.data ?? [], as: UTF8.self) + "\n"
                return true
            }
            let compared = try run(
                python!, [projectDirectory + "/Tests/EndToEnd/Oracle/compare_features.py", oracle], input: lines)
            let answer = try JSON(parsing: [UInt8](compared.output.utf8))
            #expect(
                answer == ["compared": 26_921, "different": 0, "missing": 0, "bijective": true],
                "\(compared.output) \(compared.errors)")
        }

        private static let inTraining = Monitor(0)

        /// Twenty kills at seeded moments in four runs, two of each run while a model trains or is deployed; every run ends in
        /// the same events and state digests as the one that was left alone.
        @Test(arguments: 0..<4) func killedNodesEndTheSame(seed: Int) async throws {
            let days = try first()
            let scratch = try ScratchDirectory()
            var random = SeededRandom(seed: UInt64(seed) &+ 100)
            var inTraining = 0
            for kill in 0..<5 {
                let node = try FlightsNode(
                    data: scratch.path, until: FirstDays.until, checkpoint: Double.random(in: 0.05...1, using: &random))
                // First, since a fast node may have trained everything after a while.
                if kill < 2 {
                    if try await waitForTraining(node) { inTraining += 1 }
                    try await Task.sleep(for: .milliseconds(Int.random(in: 0...400, using: &random)))
                } else {
                    try await Task.sleep(for: .milliseconds(Int.random(in: 150...1800, using: &random)))
                }
                node.killNow()
            }
            // On a machine with much else to do a training may be over between two looks; of all eight most are met.
            let all = Self.inTraining.update { total in
                total += inTraining
                return total
            }
            if seed == 3 { #expect(all >= 5) }
            let last = try FlightsNode(data: scratch.path, until: FirstDays.until)
            last.process.waitUntilExit()
            try #require(last.process.terminationStatus == 0, "\(last.errors)")
            let ended = try fingerprint(scratch.path)
            for (topic, expected) in days.print.sorted(by: { $0.key < $1.key }) {
                #expect(ended[topic] == expected, "\(topic)")
            }
            #expect(ended.count == days.print.count)
        }

        /// True when a training is under way.
        private func waitForTraining(_ node: FlightsNode) async throws -> Bool {
            let address = try node.address()
            while node.process.isRunning {
                guard let answer = try? await http("GET", address + "/v1/topics") else {
                    try await Task.sleep(for: .milliseconds(10))
                    continue
                }
                var records: [String: Int64] = [:]
                for topic in answer.json["topics"]?.array ?? [] {
                    records[topic["name"]?.string ?? ""] = topic["records"]?.int ?? 0
                }
                if (records["training.requested"] ?? 0) > (records["models.registered"] ?? 0) { return true }
                try await Task.sleep(for: .milliseconds(2))
            }
            return false
        }

        @Test func auditsGiveVerdicts() throws {
            let days = try first()
            func audit(_ data: String, _ kind: String, _ subject: String) throws -> (status: Int32, json: JSON) {
                let result = try run(headrace, ["audit", kind, subject, "--data", data, "--json"])
                return (result.status, try JSON(parsing: [UInt8](result.output.utf8)))
            }
            let model = try audit(days.data, "model", "flights-delay@2")
            #expect(model.status == 0 && model.json["verdict"] == "EXACT")
            #expect(
                model.json["modelDigest"] == model.json["recordedModelDigest"]
                    && model.json["datasetDigest"] == model.json["recordedDatasetDigest"])
            let page = try JSON(
                parsing: [UInt8](
                    try run(
                        headrace,
                        ["tail", "predictions.served", "--from", "700", "--limit", "1", "--json", "--data", days.data]
                    ).output.utf8))
            let id = try #require(page["data"]?["id"]?.string)
            let prediction = try audit(days.data, "prediction", id)
            #expect(
                prediction.status == 0 && prediction.json["verdict"] == "EXACT"
                    && prediction.json["score"] == prediction.json["recordedScore"])
            let replay = try run(headrace, ["replay", "--data", days.data, "--json"])
            #expect(replay.status == 0 && replay.output.contains("EXACT"), "\(replay.output)")

            // A flipped byte in the middle of the log.
            let flipped = try days.copy()
            let segment = flipped.path + "/log/00000000000000000000.wal"
            var bytes = [UInt8](try #require(FileManager.default.contents(atPath: segment)))
            bytes[bytes.count / 3] ^= 0x10
            try Data(bytes).write(to: URL(filePath: segment))
            let unreplayable = try audit(flipped.path, "model", "flights-delay@2")
            #expect(unreplayable.status == 12 && unreplayable.json["verdict"] == "UNREPLAYABLE")
            #expect(unreplayable.json["reason"]?.string?.contains("events") == true)

            // One delay rewritten, with every checksum made good.
            let forged = try days.copy()
            let place = try forge(forged.path + "/log/00000000000000000000.wal")
            let diverged = try audit(forged.path, "model", "flights-delay@2")
            #expect(diverged.status == 11 && diverged.json["verdict"] == "DIVERGED")
            let ranges = (diverged.json["rewritten"]?.array ?? []).compactMap(\.string)
            #expect(ranges.contains { $0.hasPrefix(place.partition + "@") }, "\(ranges) \(place)")
            #expect(diverged.json["firstDifference"]?["position"]?.string?.hasPrefix("questions.asked/0@") == true)
        }

        /// Changes one dep_delay in a frame of the first third, writes the frame anew with valid checksums, and says where.
        private func forge(_ path: String) throws -> (partition: String, offset: Int64) {
            let bytes = [UInt8](try #require(FileManager.default.contents(atPath: path)))
            var start = 0
            while start < bytes.count {
                let frame = try bytes[start...].withUnsafeBytes { try LogFrame.decode($0) }
                guard start > bytes.count / 3,
                    let index = frame.batches.firstIndex(where: { $0.partition.topic == "flights.departed" })
                else {
                    start += frame.size
                    continue
                }
                let batches = try frame.batches.enumerated().map { number, place in
                    let stored = Array(bytes[start + place.start..<start + place.start + place.size])
                    let batch = try stored.withUnsafeBytes { try RecordBatch($0) }
                    var builder = RecordBatchBuilder(baseOffset: place.baseOffset)
                    for record in batch.records.indices {
                        let event = StoredEvent(batch: batch, index: record)
                        guard number == index, record == 0 else {
                            builder.append(batch, record)
                            continue
                        }
                        let data = String(decoding: event.data ?? [], as: UTF8.self)
                            .replacingOccurrences(of: "\"dep_delay\":", with: "\"dep_delay\":9")
                            .replacingOccurrences(of: ":9-", with: ":9")
                        builder.append(
                            NewEvent(
                                id: event.id, source: event.header("ce_source") ?? "", type: event.type,
                                time: event.time,
                                key: event.key, data: [UInt8](data.utf8)))
                    }
                    let encoded = builder.finish()
                    return LogFrame.NewBatch(
                        partition: place.partition, baseOffset: place.baseOffset, batch: encoded,
                        isDeduplicated: place.isDeduplicated)
                }
                var forged = LogFrame.encode(
                    firstSequence: frame.firstSequence, principal: frame.principal, keyID: frame.keyID,
                    batches: batches,
                    interleave: frame.interleave)
                _ = LogFrame.seal(
                    &forged, previousHash: frame.previousHash, recordedTime: frame.recordedTime,
                    durableThrough: frame.durableThrough)
                try Data(bytes[..<start] + forged + bytes[(start + frame.size)...]).write(to: URL(filePath: path))
                // The index is derived; whoever forges would drop it.
                try FileManager.default.removeItem(atPath: String(path.dropLast(4)) + ".index")
                return (frame.batches[index].partition.description, frame.batches[index].baseOffset)
            }
            throw EventLogError("test", "no frame to forge")
        }

        @Test func commandsAnswerWithoutANode() throws {
            let days = try first()
            func cli(_ arguments: String...) throws -> (status: Int32, output: String, errors: String) {
                try run(headrace, arguments + ["--data", days.data])
            }
            let report = try JSON(parsing: [UInt8](try cli("report", "flights", "--json").output.utf8))
            #expect(report["months"]?.array?.count == 2 && report["months"]?.array?[1]["auc"]?.double ?? 0 > 0.6)
            #expect(
                (report["events"]?.int ?? 0) > 200_000 && report["seconds"]?.double ?? 0 > 0
                    && report["peakMemoryBytes"]?.int ?? 0 > 0)
            #expect(
                report["meanOver"] == ["2013-02", "2013-12"] && report["meanAUC"] == report["months"]?.array?[1]["auc"])
            let graph = try JSON(parsing: [UInt8](try cli("lineage", "model:flights-delay@1", "--json").output.utf8))
            let kinds = Set((graph["nodes"]?.array ?? []).compactMap { $0["kind"]?.string })
            #expect(kinds.isSuperset(of: ["model", "run", "dataset", "range", "definition"]))
            let sql = try cli("sql", "select count(*) as n from predictions where score is not null")
            #expect(sql.status == 0 && sql.output.contains("as of"))
            #expect(try cli("sql", "delete from predictions").status == 2)
            #expect(try cli("lineage", "model:nope@1").status == 3)
            #expect(try cli("report", "nope").status == 3)
            #expect(try cli("audit", "model", "nope@1").status == 3)
            #expect(try cli("tail", "nope", "--no-follow").status == 3)
            let status = try cli("status").output
            #expect(status.contains("headHash") && status.contains("stopped"))
            #expect(try cli("topics").output.contains("predictions.served"))
            #expect(try cli("apply", "Examples/flights").output.contains("unchanged"))
            #expect(try run(headrace, ["status", "--data", "/nonexistent"]).status == 3)
            let again = try run(
                headrace,
                [
                    "start", "--data", days.data, "--workspace", "Examples/flights", "--connector",
                    "Connectors/flights.json", "--until", FirstDays.until, "--port", "0", "--exit",
                ], environment: ["HEADRACE_FLIGHTS": flightsDirectory!])
            #expect(again.status == 0 && again.output.contains("nothing new"), "\(again.output) \(again.errors)")
            #expect(try fingerprint(days.data) == days.print)
        }
    }
}
