import ArgumentParser
import Base
import Foundation
import Node

/// Dead letters: what the gateway refused, and what the fold could not read.
struct Letters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dlq", abstract: "See what was refused or could not be folded, and bring it in again.",
        subcommands: [ListLetters.self, ShowLetter.self, RetryLetters.self])
}

struct ListLetters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "The newest letters that were not healed yet.")
    @OptionGroup var common: Common
    @Option(name: .long, help: "Of events of this topic only.") var topic: String?
    @Option(name: .long, help: "Refused for this reason only, such as schema-violation.") var code: String?
    @Option(name: .long, help: "At most so many of each kind.") var limit = 50
    @Flag(name: .long, help: "Those that were healed as well.") var all = false

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            guard (1...Limits.pageEvents).contains(limit) else {
                throw NodeError("bad-use", "--limit is a number from 1 to \(Limits.pageEvents), not \(limit)")
            }
            var path = "/v1/letters?limit=\(limit)&all=\(all)"
            if let topic { path += "&topic=" + Connection.escape(topic) }
            if let code { path += "&code=" + Connection.escape(code) }
            let answer = try await connection.ask("GET", path) { node in
                try node.letters(topic: topic, code: code, all: all, limit: limit)
            }
            if common.json { return Terminal.print(answer) }
            let letters = answer["letters"]?.array ?? []
            guard !letters.isEmpty else { return print("no letters") }
            Terminal.table(
                ["letter", "topic", "id", "code", "attempts", "reason"],
                letters.map { letter in
                    ["position", "topic", "id", "code", "attempts"].map { Terminal.cell(letter[$0] ?? .null) } + [
                        String((letter["reason"]?.string ?? "").prefix(100))
                    ]
                })
            if answer["more"]?.bool == true { print("there are more; --limit shows them") }
        }
    }
}

struct ShowLetter: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One letter, as a whole.")
    @OptionGroup var common: Common
    @Argument(help: "Where it stands, such as headrace.dead-letters/0@5.") var letter: String

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask("GET", "/v1/letter?position=" + Connection.escape(letter)) { node in
                try node.letter(letter)
            }
            if common.json { return Terminal.print(answer) }
            var rows: [[String]] = []
            for (key, value) in JSON.sorted(answer.object ?? [:]) where key != "letter" {
                rows.append([key, Terminal.cell(value)])
            }
            for (key, value) in JSON.sorted(answer["letter"]?.object ?? [:]) where answer[key] == nil {
                rows.append([key, Terminal.cell(value)])
            }
            Terminal.table(["what", "value"], rows)
        }
    }
}

struct RetryLetters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry", abstract: "Publish what letters are about once more, through the same checks.")
    @OptionGroup var common: Common
    @Argument(help: "Where they stand, such as headrace.dead-letters/0@5.") var letters: [String] = []
    @Flag(name: .long, help: "All that were not healed yet.") var all = false
    @Option(name: .long, help: "With --all: of events of this topic only.") var topic: String?
    @Option(name: .long, help: "With --all: refused for this reason only.") var code: String?
    @Flag(name: .long, help: "Date the events now; with their own time they may be late.") var now = false
    @Option(name: .long, help: "Other data, as JSON, for one letter.") var data: String?

    func run() async throws {
        try await reporting {
            guard letters.isEmpty == all else {
                throw NodeError("bad-use", "name letters, or say --all")
            }
            var members: [String: JSON] = [
                "positions": .array(letters.map { .string($0) }), "all": .bool(all), "now": .bool(now),
            ]
            if let topic { members["topic"] = .string(topic) }
            if let code { members["code"] = .string(code) }
            if let data {
                do throws(BaseError) {
                    members["data"] = try JSON(parsing: [UInt8](data.utf8))
                } catch {
                    throw NodeError("bad-json", "--data is not JSON: \(error.message)")
                }
            }
            let connection = try common.connection()
            defer { connection.close() }
            let request = JSON.object(members)
            let answer = try await connection.ask("POST", "/v1/letters/retry", body: request.canonical) { node in
                try await node.retryLetters(request)
            }
            let list = answer["retried"]?.array ?? []
            if common.json {
                Terminal.print(answer)
            } else {
                Terminal.table(
                    ["letter", "attempt", "status", "position or reason"],
                    list.map { item in
                        ["letter", "attempt", "status"].map { Terminal.cell(item[$0] ?? .null) } + [
                            item["position"]?.string ?? item["message"]?.string ?? ""
                        ]
                    })
            }
            if list.contains(where: { $0["status"]?.string == "refused" }) { throw ExitCode(2) }
        }
    }
}
