import Base
import EventLog
import Foundation
import Testing

extension HeavyTests {
    /// What somebody does with a log at three in the morning, by the commands that they have.
    @Suite struct LogCommandTests {
        private let scratch: ScratchDirectory
        private let data: String
        private let node: FlightsNode
        private let address: String

        init() throws {
            scratch = try ScratchDirectory()
            data = scratch.path + "/data"
            let workspace = scratch.path + "/workspace"
            try FileManager.default.createDirectory(atPath: workspace, withIntermediateDirectories: true)
            try Data("kind: Topic\nname: t\npartitions: 2\n".utf8).write(to: URL(filePath: workspace + "/w.yaml"))
            node = try FlightsNode(data: data, connector: nil, exit: false, workspace: workspace)
            address = try node.address()
        }

        private func publish(_ numbers: Range<Int>) async throws {
            let events = numbers.map { number in
                let time = Instant(milliseconds: 1_700_000_000_000 + Int64(number) * 1000)
                return
                    #"{"specversion":"1.0","id":"e\#(number)","source":"s","type":"t","time":"\#(time)","data":{"n":\#(number)}}"#
            }
            let answer = try await http(
                "POST", "\(address)/v1/events?topic=t",
                headers: ["Content-Type": "application/cloudevents-batch+json"],
                body: [UInt8]("[\(events.joined(separator: ","))]".utf8))
            #expect(answer.status == 200, "\(answer.text)")
        }

        private func log(_ arguments: String..., status: Int32 = 0) throws -> String {
            let answer = try run(headrace, ["log"] + arguments + ["--data", data])
            #expect(answer.status == status, "\(arguments) \(answer.output) \(answer.errors)")
            return answer.output
        }

        private func numbers(_ text: String) throws -> [Int64] {
            try text.split(separator: "\n").compactMap { try JSON(parsing: [UInt8]($0.utf8))["data"]?["n"]?.int }
        }

        @Test(.timeLimit(.minutes(2))) func aLogIsLookedAtCopiedAndMended() async throws {
            try await publish(0..<40)
            // From a moment: in each partition the first event of that time or a later one.
            let moment = Instant(milliseconds: 1_700_000_000_000 + 30_000)
            let late = try run(
                headrace, ["tail", "t", "--from", "\(moment)", "--no-follow", "--json", "--data", data])
            #expect(try numbers(late.output).sorted() == (30..<40).map { Int64($0) })
            let page = try await http("GET", "\(address)/v1/topics/t/events?from=\(moment)&limit=100").json
            #expect(page["events"]?.array?.count == 10)

            let inspected = try JSON(parsing: [UInt8](try log("inspect", "--json").utf8))
            #expect((inspected["writeAmplification"]?.double ?? 0) >= 1)
            let table = try log("inspect")
            #expect(
                table.contains("t/0") && table.contains("t/1")
                    && (table.contains("bytes written for each") || table.contains("nothing has moved")))
            let metrics = try await http("GET", address + "/metrics").text
            #expect(metrics.contains("headrace_log_write_amplification 1"))

            // A copy while it runs, and then what is new.
            let backup = scratch.path + "/backup"
            let first = try JSON(parsing: [UInt8](try log("backup", backup, "--json").utf8))
            try await publish(40..<60)
            let second = try JSON(parsing: [UInt8](try log("backup", backup, "--json").utf8))
            #expect((second["events"]?.int ?? 0) > (first["events"]?.int ?? 0))
            #expect((second["copiedBytes"]?.int ?? .max) < (second["totalBytes"]?.int ?? 0))

            // The order over all topics, running and stopped.
            let order = try log("order", "--limit", "1000", "--json")
            #expect(try log("repair", "--dry-run").contains("nothing to repair"), "beside a node that runs")
            #expect(try log("repair").contains("nothing to repair"))
            #expect(try log("repair", "--from", backup, status: 2) == "")
            #expect(try log("backup", data + "/log/copy", status: 2) == "")
            #expect(try log("order", "--from", "9999").contains("none from sequence 9999 on"))
            node.killNow()
            let stopped = try log("order", "--limit", "1000", "--json")
            #expect(stopped.hasPrefix(String(order.prefix(order.count / 2))) && order.contains("t/1@"))

            // A torn tail is told with its own bytes, without those that were reserved ahead.
            let files = try FileManager.default.contentsOfDirectory(atPath: data + "/log").sorted()
            let wal = data + "/log/" + (try #require(files.last { $0.hasSuffix(".wal") }))
            let end = try #require(
                (try JSON(parsing: [UInt8](try log("inspect", "--json").utf8))["segments"]?.array?.last?["bytes"]?.int))
            let handle = try #require(FileHandle(forWritingAtPath: wal))
            try handle.seek(toOffset: UInt64(end))
            try handle.write(contentsOf: Data("fourteen bytes".utf8))
            try handle.close()
            let dry = try log("repair", "--dry-run")
            #expect(dry.contains("14 bytes of a torn tail would be cut off"), "\(dry)")
            #expect(try log("repair", "--dry-run") == dry, "it changes nothing")
            #expect(try log("repair").contains("14 bytes of a torn tail cut off"))
            #expect(try log("repair").contains("nothing to repair"))
            #expect(try log("verify").hasPrefix("INTACT"))

            let restored = scratch.path + "/restored"
            let back = try run(headrace, ["log", "restore", backup, "--data", restored])
            #expect(back.status == 0 && back.output.hasPrefix("INTACT"), "\(back.output) \(back.errors)")
            let again = try run(headrace, ["tail", "t", "--no-follow", "--json", "--data", restored])
            #expect(try numbers(again.output).sorted() == (0..<60).map { Int64($0) })
            #expect(try log("unpin", "model:nothing@1", status: 3) == "")

            // Rot: every command that meets it says so, and the backup has what was lost.
            var rotten = try Data(contentsOf: URL(filePath: wal))
            rotten[Int(end) / 2] ^= 0x20
            try rotten.write(to: URL(filePath: wal))
            #expect(try log("verify", status: 11).contains("damaged: "))
            let name = String(wal.split(separator: "/").last ?? "")
            #expect(try log("inspect", "--file", name, status: 11).contains("damaged bytes: "))
            #expect(try log("order", "--limit", "1000", status: 11).contains("lost: the places of "))
            #expect(try log("repair", status: 11).contains("cannot be repaired: "))
            let healed = try log("repair", "--from", backup)
            #expect(healed.contains("healed from the backup: ") && healed.contains("nothing to repair"), "\(healed)")
            #expect(try log("verify").hasPrefix("INTACT"))
        }
    }
}
