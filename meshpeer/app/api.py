"""Answers the control API for one running agent. Reads the node's state, posts events, waits for the journal
where it promises."""

from __future__ import annotations

from meshpeer.app.api_anywhere import AnywhereAnswers
from meshpeer.app.api_calls import CallAnswers
from meshpeer.app.api_charter import CharterAnswers
from meshpeer.app.api_dashboard import DashboardAnswers
from meshpeer.app.api_doctor import DoctorAnswers
from meshpeer.app.api_issuers import IssuerAnswers
from meshpeer.app.api_mesh import MeshAnswers
from meshpeer.app.api_rename import RenameAnswers
from meshpeer.app.api_revoke import RevokeAnswers
from meshpeer.app.api_rotate import RotateAnswers
from meshpeer.app.api_why import WhyAnswers


class AgentApi(
    MeshAnswers,
    WhyAnswers,
    DoctorAnswers,
    CharterAnswers,
    RevokeAnswers,
    IssuerAnswers,
    RotateAnswers,
    RenameAnswers,
    DashboardAnswers,
    AnywhereAnswers,
    CallAnswers,
):
    """Implements ``runtime.control.ControlApi``."""
