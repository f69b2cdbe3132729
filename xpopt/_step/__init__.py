"""What one step does: check, bind, ask the schedule, launch, commit."""
