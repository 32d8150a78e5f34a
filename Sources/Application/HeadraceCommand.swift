import ArgumentParser
import Base
import Foundation
import Node

struct HeadraceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "headrace",
        abstract:
            "An event-sourced streaming platform for machine learning: one log, and everything else a fold over it.",
        discussion: """
            Exit codes: 0 done (an audit: EXACT), 1 failed, 2 refused by the node or wrong use, 3 not found,
            10 WITHIN-TOLERANCE, 11 DIVERGED (of a log: DAMAGED), 12 UNREPLAYABLE, 64 wrong arguments.
            """,
        subcommands: [
            Start.self, Work.self, Plan.self, Apply.self, Remove.self, Topics.self, Tail.self, Publish.self,
            Replay.self,
            Report.self,
            Lineage.self,
            Audit.self,
            SQL.self, Status.self, Erase.self, Features.self, StreamView.self, Letters.self, TopologyCommand.self,
            DatasetCommand.self, Log.self,
        ])
}

/// Options that every command has.
struct Common: ParsableArguments {
    @Option(name: .long, help: "The data directory (or HEADRACE_DATA).")
    var data: String = ProcessInfo.processInfo.environment["HEADRACE_DATA"] ?? ".data"

    @Flag(name: .long, help: "Print JSON for programs.")
    var json = false

    /// - Parameter triesChanges: the program's streams may be others than those in force.
    func connection(triesChanges: Bool = false) throws -> Connection {
        try Connection(dataDirectory: data, triesChanges: triesChanges)
    }
}

/// Runs a command's body, printing errors on standard error with a documented exit code.
func reporting(_ body: () async throws -> Void) async throws {
    do {
        try await body()
    } catch let error as any DescribedError {
        FileHandle.standardError.write(Data("headrace: \(error.message) [\(error.code)]\n".utf8))
        switch error.code {
        case "manifest-damaged", "rot": throw ExitCode(11)
        case let code where code.hasPrefix("unknown-"): throw ExitCode(3)
        default: throw ExitCode(error.fault == .caller ? 2 : 1)
        }
    }
}

/// Where the platform's own files are: HEADRACE_HOME, the current folder, or a folder above the executable.
func home() -> String {
    let files = FileManager.default
    var places = [ProcessInfo.processInfo.environment["HEADRACE_HOME"], files.currentDirectoryPath].compactMap { $0 }
    var place = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    for _ in 0..<5 {
        places.append(place.path)
        place = place.deletingLastPathComponent()
    }
    return places.first { files.fileExists(atPath: $0 + "/Topics") } ?? files.currentDirectoryPath
}
