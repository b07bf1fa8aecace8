"""What people and graders say of answers, and what that adds up to."""
