import ArgumentParser
import Base
import EventLog
import Foundation
import Node

struct Repair: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Cut a torn tail, clear leftovers, build missing indexes. Readable events are never removed.")
    @OptionGroup var common: Common
    @Flag(name: .long, help: "Say what would be done, and change nothing.") var dryRun = false
    @Option(name: .long, help: "A backup to take from what is damaged here; no node may be running.") var from: String?

    func run() async throws {
        try await reporting {
            if let from {
                if try heal(from) { return }
            }
            // A running node builds what is missing; cutting a torn tail is what it did when it started.
            let body = JSON.object(["mode": .string(dryRun ? "dry-run" : "repair")]).canonical
            let answer = try await Log.ask(common, "POST", "/v1/log/repair", body: body, writes: !dryRun) {
                try LogReport.repair($0, dryRun: dryRun)
            }
            defer { fflush(nil) }
            if common.json { return Terminal.print(answer) }
            let would = dryRun ? "would be " : ""
            if let file = answer["truncatedFile"]?.string {
                print(
                    "\(Terminal.cell(answer["truncatedBytes"] ?? .null)) bytes of a torn tail \(would)cut off \(file)")
            }
            for name in answer["removed"]?.array ?? [] {
                print("\(name.string ?? "") \(would)removed: left by an interrupted step")
            }
            for name in answer["rebuilt"]?.array ?? [] { print("\(name.string ?? "") \(would)built again") }
            for damage in (answer["damaged"]?.array ?? []) + (answer["lostIds"]?.array ?? []) {
                print("cannot be repaired: \(damage.string ?? "")")
            }
            if let mark = answer["mark"]?.string { print(mark) }
            if answer["truncatedFile"]?.string == nil, answer["mark"]?.string == nil,
                ["removed", "rebuilt", "damaged", "lostIds"].allSatisfy({ answer[$0]?.array?.isEmpty ?? true })
            {
                print("nothing to repair")
            }
            guard ["damaged", "lostIds"].allSatisfy({ answer[$0]?.array?.isEmpty ?? true }) else {
                print(
                    "what is named is lost here; the rest is readable. A backup may have it: stop the node, then headrace log repair --from BACKUP"
                )
                throw ExitCode(11)
            }
        }
    }
    /// Whether there is nothing else to do.
    private func heal(_ backup: String) throws -> Bool {
        let configuration = NodeConfiguration(dataDirectory: common.data, platformTopics: "")
        guard !EmbeddedLog.isOwned(configuration.logDirectory) else {
            throw NodeError(
                "locked", "a node runs on '\(common.data)'; what it has open is not replaced: stop it first")
        }
        try LogChoice.requireFiles(configuration)
        let answer = try LogReport.heal(configuration.logDirectory, from: URL(filePath: backup).path, dryRun: dryRun)
        if common.json {
            Terminal.print(answer)
            guard answer["verification"]?["verdict"]?.string == "INTACT" else { throw ExitCode(11) }
            return true
        }
        let healed = answer["healed"]?.array ?? []
        for line in healed { print("\(dryRun ? "would be " : "")healed from the backup: \(line.string ?? "")") }
        guard answer["verification"]?["verdict"]?.string == "INTACT" else {
            if healed.isEmpty { print("the backup has nothing that would heal it; nothing was changed") }
            Verify.show(answer["verification"] ?? .null)
            throw ExitCode(11)
        }
        if healed.isEmpty { print("nothing is damaged") }
        return false
    }
}
